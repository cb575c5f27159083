#include "tensor/tensor.h"

#include <fmt/ranges.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace nibble {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

std::int64_t element_count(const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(count, dim, &count)) {
      fail(ErrorKind::kCorrupt, "shape {} has no representable number of elements",
           to_string(shape));
    }
  }
  return count;
}

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Tensor Tensor::allocate(DType dtype, Shape shape) {
  return allocate_aligned(dtype, std::move(shape), 64);
}

Tensor Tensor::allocate_huge(DType dtype, Shape shape) {
  Tensor t = allocate_aligned(dtype, std::move(shape), kHugePage);
  (void)::madvise(const_cast<std::byte*>(t.data_), t.byte_size(), MADV_HUGEPAGE);  // advice only
  return t;
}

Tensor Tensor::allocate_aligned(DType dtype, Shape shape, std::size_t align) {
  Tensor t;
  t.dtype_ = dtype;
  t.elements_ = element_count(shape);
  t.shape_ = std::move(shape);
  std::int64_t size = 0;
  if (__builtin_mul_overflow(t.elements_, static_cast<std::int64_t>(dtype_size(dtype)), &size)) {
    fail(ErrorKind::kMemory, "tensor {} is larger than any memory", to_string(t.shape_));
  }
  const std::size_t padded =
      (static_cast<std::size_t>(std::max<std::int64_t>(size, 1)) + align - 1) & ~(align - 1);
  auto* data =
      static_cast<std::byte*>(::operator new (padded, std::align_val_t{align}, std::nothrow));
  if (data == nullptr) {
    fail(ErrorKind::kMemory, "cannot allocate {} bytes for a tensor {}", padded,
         to_string(t.shape_));
  }
  t.data_ = data;
  t.mutable_ = true;
  t.owner_ = std::shared_ptr<const void>(data, [align](const void* p) {
    ::operator delete (const_cast<void*>(p), std::align_val_t{align});
  });
  return t;
}

Tensor Tensor::view(DType dtype, Shape shape, std::span<const std::byte> bytes,
                    std::shared_ptr<const void> owner) {
  Tensor t;
  t.dtype_ = dtype;
  t.elements_ = element_count(shape);
  t.shape_ = std::move(shape);
  NIBBLE_CHECK(t.byte_size() == bytes.size());
  // A zero-size tensor is not an empty() one: it must keep a non-null pointer.
  static const std::byte kNothing{};
  t.data_ = bytes.empty() ? &kNothing : bytes.data();
  t.owner_ = std::move(owner);
  return t;
}

Tensor Tensor::on_device(DType dtype, Shape shape, void* data, std::shared_ptr<const void> owner) {
  Tensor t;
  t.dtype_ = dtype;
  t.elements_ = element_count(shape);
  t.shape_ = std::move(shape);
  t.data_ = static_cast<const std::byte*>(data);
  t.mutable_ = true;
  t.place_ = Place::kDevice;
  t.owner_ = std::move(owner);
  return t;
}

Tensor Tensor::reshaped(Shape shape) const {
  NIBBLE_CHECK(element_count(shape) == elements_);
  Tensor t = *this;
  t.shape_ = std::move(shape);
  return t;
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t end) const {
  NIBBLE_CHECK(!shape_.empty() && 0 <= begin && begin <= end && end <= shape_[0]);
  Tensor t = *this;
  const std::int64_t stride = shape_[0] == 0 ? 0 : elements_ / shape_[0];
  t.shape_[0] = end - begin;
  t.elements_ = (end - begin) * stride;
  t.data_ = data_ + static_cast<std::size_t>(begin * stride) * dtype_size(dtype_);
  return t;
}

void to_float(const Tensor& tensor, std::int64_t begin, std::int64_t count, float* out) {
  NIBBLE_CHECK(begin >= 0 && count >= 0 && begin + count <= tensor.elements());
  const std::byte* in =
      tensor.bytes().data() + static_cast<std::size_t>(begin) * dtype_size(tensor.dtype());
  const auto n = static_cast<std::size_t>(count);
  switch (tensor.dtype()) {
    case DType::kF32:
      std::memcpy(out, in, n * sizeof(float));
      return;
    case DType::kBF16:
    case DType::kF16:
      for (std::size_t i = 0; i < n; ++i) {
        std::uint16_t bits;
        std::memcpy(&bits, in + 2 * i, 2);
        out[i] = tensor.dtype() == DType::kBF16 ? to_float(bf16{bits}) : to_float(f16{bits});
      }
      return;
    default:
      fail(ErrorKind::kUnsupported, "a tensor of type {} is no weight", to_string(tensor.dtype()));
  }
}

void to_float(const Tensor& tensor, float* out) { to_float(tensor, 0, tensor.elements(), out); }

Tensor to_float(const Tensor& tensor) {
  Tensor result = Tensor::allocate(DType::kF32, tensor.shape());
  to_float(tensor, result.mutable_data<float>());
  return result;
}

Tensor from_float(const float* values, DType dtype, Shape shape) {
  Tensor result = Tensor::allocate(dtype, std::move(shape));
  const auto n = static_cast<std::size_t>(result.elements());
  switch (dtype) {
    case DType::kF32:
      std::memcpy(result.mutable_data<float>(), values, n * sizeof(float));
      break;
    case DType::kBF16:
      for (std::size_t i = 0; i < n; ++i) result.mutable_data<bf16>()[i] = to_bf16(values[i]);
      break;
    case DType::kF16:
      for (std::size_t i = 0; i < n; ++i) result.mutable_data<f16>()[i] = to_f16(values[i]);
      break;
    default:
      fail(ErrorKind::kUnsupported, "weights cannot be stored as {}", to_string(dtype));
  }
  return result;
}

}  // namespace nibble
