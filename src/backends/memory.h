// The memory in which a backend's ops find their arguments.
#pragma once

#include <cstddef>
#include <memory>

#include "tensor/tensor.h"

namespace nibble {

// A place on the host to which a device copies while it and the host go on. Not thread-safe.
class ReadBack {
 public:
  virtual ~ReadBack() = default;

  // Begins a copy behind the ops that were issued before; what the last one brought is lost. Within
  // the size that it was made for.
  virtual void start(const void* device, std::size_t bytes) = 0;
  // Waits for the copy, and not for what was issued after it. Valid until the next start().
  virtual const void* wait() = 0;
};

// Copies are ordered after the ops that were issued before them; those that end on the host wait.
// Errors: kMemory or kDevice when memory cannot be had, kDevice when the device fails. Not
// thread-safe.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;

  // True when it is the host's memory, and nothing needs to be copied.
  virtual bool is_host() const = 0;
  // Bytes that can still be allocated, as far as is known.
  virtual std::size_t available() const = 0;
  // Not initialised; aligned to 64 bytes at least.
  virtual Tensor allocate(DType dtype, Shape shape) = 0;
  virtual void copy_in(const void* host, std::size_t bytes, void* device) = 0;
  virtual void copy_out(const void* device, std::size_t bytes, void* host) = 0;
  virtual void copy(const void* from, std::size_t bytes, void* to) = 0;  // both within this memory
  // The same of `rows` rows of row_bytes each, so many bytes apart.
  virtual void copy_rows(const void* from, std::size_t from_stride, std::size_t row_bytes,
                         std::size_t rows, void* to, std::size_t to_stride) = 0;
  virtual void zero(void* device, std::size_t bytes) = 0;

  // For copies of at most so many bytes. May not outlive the memory.
  virtual std::unique_ptr<ReadBack> make_read_back(std::size_t bytes);

  // The same values in this memory; a tensor that is there already is returned as it is, an empty
  // one too.
  Tensor upload(const Tensor& tensor);
  // The same values in the host's memory.
  Tensor download(const Tensor& tensor);
};

// Thread-safe.
DeviceMemory& host_memory();

}  // namespace nibble
