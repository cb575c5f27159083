#include "backends/memory.h"

#include <cstring>
#include <limits>
#include <vector>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::size_t kHugeBytes = std::size_t{16} << 20;

class HostMemory final : public DeviceMemory {
 public:
  bool is_host() const override { return true; }
  std::size_t available() const override { return std::numeric_limits<std::size_t>::max(); }
  Tensor allocate(DType dtype, Shape shape) override {
    const auto elements = static_cast<std::size_t>(element_count(shape));
    return elements < kHugeBytes / dtype_size(dtype)
               ? Tensor::allocate(dtype, std::move(shape))
               : Tensor::allocate_huge(dtype, std::move(shape));
  }
  void copy_in(const void* host, std::size_t bytes, void* device) override {
    std::memcpy(device, host, bytes);
  }
  void copy_out(const void* device, std::size_t bytes, void* host) override {
    std::memcpy(host, device, bytes);
  }
  void copy(const void* from, std::size_t bytes, void* to) override {
    std::memcpy(to, from, bytes);
  }
  void copy_rows(const void* from, std::size_t from_stride, std::size_t row_bytes, std::size_t rows,
                 void* to, std::size_t to_stride) override {
    for (std::size_t row = 0; row < rows; ++row) {
      std::memcpy(static_cast<std::byte*>(to) + row * to_stride,
                  static_cast<const std::byte*>(from) + row * from_stride, row_bytes);
    }
  }
  void zero(void* device, std::size_t bytes) override { std::memset(device, 0, bytes); }
};

// For memory whose copies end before the call does.
class ReadAtOnce final : public ReadBack {
 public:
  ReadAtOnce(DeviceMemory& memory, std::size_t bytes) : memory_(memory), bytes_(bytes) {}
  void start(const void* device, std::size_t bytes) override {
    NIBBLE_CHECK(bytes <= bytes_.size());
    memory_.copy_out(device, bytes, bytes_.data());
  }
  const void* wait() override { return bytes_.data(); }

 private:
  DeviceMemory& memory_;
  std::vector<std::byte> bytes_;
};

}  // namespace

std::unique_ptr<ReadBack> DeviceMemory::make_read_back(std::size_t bytes) {
  return std::make_unique<ReadAtOnce>(*this, bytes);
}

Tensor DeviceMemory::upload(const Tensor& tensor) {
  if (tensor.empty() || is_host() || tensor.place() == Place::kDevice) return tensor;
  Tensor result = allocate(tensor.dtype(), tensor.shape());
  copy_in(tensor.bytes().data(), tensor.byte_size(), result.address());
  return result;
}

Tensor DeviceMemory::download(const Tensor& tensor) {
  if (tensor.place() == Place::kHost) return tensor;
  Tensor result = host_memory().allocate(tensor.dtype(), tensor.shape());
  copy_out(tensor.address(), tensor.byte_size(), result.address());
  return result;
}

DeviceMemory& host_memory() {
  static HostMemory memory;
  return memory;
}

}  // namespace nibble
