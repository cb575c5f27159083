// The card's memory, by plain allocations.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "backends/memory.h"

namespace nibble::cuda {

class CudaMemory final : public DeviceMemory {
 public:
  // Copies run on `stream`. At most `limit` bytes are allocated at a time.
  CudaMemory(cudaStream_t stream, std::size_t limit);

  bool is_host() const override { return false; }
  std::size_t available() const override;
  Tensor allocate(DType dtype, Shape shape) override;
  void copy_in(const void* host, std::size_t bytes, void* device) override;
  void copy_out(const void* device, std::size_t bytes, void* host) override;
  void copy(const void* from, std::size_t bytes, void* to) override;
  void copy_rows(const void* from, std::size_t from_stride, std::size_t row_bytes, std::size_t rows,
                 void* to, std::size_t to_stride) override;
  void zero(void* device, std::size_t bytes) override;
  std::unique_ptr<ReadBack> make_read_back(std::size_t bytes) override;

 private:
  cudaStream_t stream_;
  std::size_t limit_;
  std::shared_ptr<std::size_t> used_;  // tensors may outlive this object
};

}  // namespace nibble::cuda
