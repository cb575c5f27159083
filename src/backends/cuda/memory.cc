#include "backends/cuda/memory.h"

#include <algorithm>

#include "backends/cuda/status.h"

namespace nibble::cuda {
namespace {

// Into pinned memory; an event says when it is there.
class PinnedReadBack final : public ReadBack {
 public:
  PinnedReadBack(cudaStream_t stream, std::size_t bytes) : stream_(stream), size_(bytes) {
    check(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming), "event");
    const cudaError_t error = cudaMallocHost(&bytes_, std::max<std::size_t>(bytes, 1));
    if (error != cudaSuccess) (void)cudaEventDestroy(copied_);
    check(error, "host memory for copies");
  }
  ~PinnedReadBack() override {
    (void)cudaEventSynchronize(copied_);
    (void)cudaFreeHost(bytes_);
    (void)cudaEventDestroy(copied_);
  }
  PinnedReadBack(const PinnedReadBack&) = delete;
  PinnedReadBack& operator=(const PinnedReadBack&) = delete;

  void start(const void* device, std::size_t bytes) override {
    NIBBLE_CHECK(bytes <= size_);
    check(cudaMemcpyAsync(bytes_, device, bytes, cudaMemcpyDeviceToHost, stream_),
          "copy from the card");
    check(cudaEventRecord(copied_, stream_), "event");
  }
  const void* wait() override {
    check(cudaEventSynchronize(copied_), "device");
    return bytes_;
  }

 private:
  cudaStream_t stream_;
  std::size_t size_;
  void* bytes_ = nullptr;
  cudaEvent_t copied_ = nullptr;
};

}  // namespace

CudaMemory::CudaMemory(cudaStream_t stream, std::size_t limit)
    : stream_(stream), limit_(limit), used_(std::make_shared<std::size_t>(0)) {}

std::size_t CudaMemory::available() const {
  std::size_t free = 0;
  std::size_t total = 0;
  check(cudaMemGetInfo(&free, &total), "device memory");
  return std::min(free, limit_ - *used_);
}

Tensor CudaMemory::allocate(DType dtype, Shape shape) {
  const auto elements = static_cast<std::size_t>(element_count(shape));
  const std::size_t bytes = std::max<std::size_t>(elements, 1) * dtype_size(dtype);
  void* data = nullptr;
  const bool within = bytes / dtype_size(dtype) >= elements && bytes <= limit_ - *used_;
  if (!within || cudaMalloc(&data, bytes) != cudaSuccess) {
    (void)cudaGetLastError();  // running out of memory is no damage: what runs goes on
    fail(ErrorKind::kDevice,
         "{} bytes more do not fit on the card: {} are in use, {} are left; use a smaller model, "
         "context or batch",
         bytes, *used_, available());
  }
  *used_ += bytes;
  const std::shared_ptr<const void> owner(data, [used = used_, bytes](const void* p) {
    (void)cudaFree(const_cast<void*>(p));  // waits for the work that uses it
    *used -= bytes;
  });
  return Tensor::on_device(dtype, std::move(shape), data, owner);
}

void CudaMemory::copy_in(const void* host, std::size_t bytes, void* device) {
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_), "copy to the card");
}

void CudaMemory::copy_out(const void* device, std::size_t bytes, void* host) {
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_),
        "copy from the card");
  check(cudaStreamSynchronize(stream_), "device");
}

void CudaMemory::copy(const void* from, std::size_t bytes, void* to) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "copy on the card");
}

void CudaMemory::copy_rows(const void* from, std::size_t from_stride, std::size_t row_bytes,
                           std::size_t rows, void* to, std::size_t to_stride) {
  check(cudaMemcpy2DAsync(to, to_stride, from, from_stride, row_bytes, rows,
                          cudaMemcpyDeviceToDevice, stream_),
        "copy on the card");
}

std::unique_ptr<ReadBack> CudaMemory::make_read_back(std::size_t bytes) {
  return std::make_unique<PinnedReadBack>(stream_, bytes);
}

void CudaMemory::zero(void* device, std::size_t bytes) {
  check(cudaMemsetAsync(device, 0, bytes, stream_), "device memory");
}

}  // namespace nibble::cuda
