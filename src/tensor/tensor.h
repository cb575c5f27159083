// A typed, shaped, contiguous block of bytes. No maths here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "tensor/dtype.h"

namespace nibble {

using Shape = std::vector<std::int64_t>;

// Product of the dimensions; kCorrupt when one is negative or the product overflows int64.
std::int64_t element_count(const Shape& shape);
std::string to_string(const Shape& shape);  // "[4096, 256]"

// Where the bytes of a tensor lie. Those of kDevice can be read by the ops of a backend only.
enum class Place { kHost, kDevice };

// Row-major and contiguous. Copies are shallow: they share the bytes, which live as long as the
// last copy. A tensor either owns a heap block (`allocate`) or views bytes kept alive by `owner` (a
// mapped file, another tensor). The data pointer of a view need not be aligned to the element: read
// unaligned data with memcpy or through row access of formats/, which does.
class Tensor {
 public:
  Tensor() = default;

  // Uninitialised, aligned to 64 bytes. kMemory when it cannot be had.
  static Tensor allocate(DType dtype, Shape shape);
  // The same on huge pages, where the system has some to give: for weights that are made once and
  // read from end to end at every token. Takes up to 2 MiB more.
  static Tensor allocate_huge(DType dtype, Shape shape);
  // kInternal unless `bytes` holds exactly the elements.
  static Tensor view(DType dtype, Shape shape, std::span<const std::byte> bytes,
                     std::shared_ptr<const void> owner);
  // A block of device memory that `owner` frees.
  static Tensor on_device(DType dtype, Shape shape, void* data, std::shared_ptr<const void> owner);

  Place place() const { return place_; }
  bool empty() const { return data_ == nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  std::int64_t dim(std::size_t axis) const { return shape_[axis]; }
  std::int64_t elements() const { return elements_; }
  std::size_t byte_size() const { return static_cast<std::size_t>(elements_) * dtype_size(dtype_); }
  // kInternal for a tensor on a device.
  std::span<const std::byte> bytes() const {
    NIBBLE_CHECK(place_ == Place::kHost);
    return {data_, byte_size()};
  }

  // Typed access; kInternal when T does not have the size of the element or (data) it is a view.
  // The address of a tensor on a device is for the arguments of ops.
  template <class T>
  const T* data() const {
    NIBBLE_CHECK(sizeof(T) == dtype_size(dtype_));
    return reinterpret_cast<const T*>(data_);
  }
  template <class T>
  T* mutable_data() {
    NIBBLE_CHECK(sizeof(T) == dtype_size(dtype_) && mutable_);
    return reinterpret_cast<T*>(const_cast<std::byte*>(data_));
  }

  // The first byte, wherever it lies; kInternal (mutable) when it is a view.
  const void* address() const { return data_; }
  void* address() {
    NIBBLE_CHECK(mutable_);
    return const_cast<std::byte*>(data_);
  }

  // The same bytes under another shape with as many elements.
  Tensor reshaped(Shape shape) const;
  // Rows [begin, end) of the first axis, sharing the bytes.
  Tensor rows(std::int64_t begin, std::int64_t end) const;

 private:
  static Tensor allocate_aligned(DType dtype, Shape shape, std::size_t align);
  DType dtype_ = DType::kF32;
  Shape shape_;
  std::int64_t elements_ = 0;
  const std::byte* data_ = nullptr;
  bool mutable_ = false;
  Place place_ = Place::kHost;
  std::shared_ptr<const void> owner_;
};

// F16, BF16 or F32 to float32, element by element; kUnsupported for other types. `out` holds
// elements() floats.
void to_float(const Tensor& tensor, float* out);
// A range of elements of the flattened tensor.
void to_float(const Tensor& tensor, std::int64_t begin, std::int64_t count, float* out);
// The whole tensor as a fresh F32 tensor of the same shape.
Tensor to_float(const Tensor& tensor);
// float32 rounded (nearest even) into a fresh tensor of F16, BF16 or F32.
Tensor from_float(const float* values, DType dtype, Shape shape);

}  // namespace nibble
