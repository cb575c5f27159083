#include "checkpoint/byte_codes.h"

#include <cstring>
#include <memory>

#include "base/error.h"
#include "checkpoint/pack_quantized.h"
#include "formats/affine.h"

namespace nibble {
namespace {

constexpr std::int64_t kWordBytes = 4;

}  // namespace

std::vector<std::uint8_t> to_codes(const Tensor& values, int bits, const std::string& name) {
  const int offset = 1 << (bits - 1);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(values.elements()));
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const int code = static_cast<std::int8_t>(values.bytes()[i]) + offset;
    if (code < 0 || code >= 2 * offset) {
      fail(ErrorKind::kCorrupt, "tensor '{}': {} is out of the range of {} bits", name,
           code - offset, bits);
    }
    codes[i] = static_cast<std::uint8_t>(code);
  }
  return codes;
}

Tensor pack_signed(const Tensor& values, int bits, const std::string& name) {
  const std::int64_t rows = values.dim(0);
  const std::int64_t words = packed_words(values.dim(1), bits, Packing::kDense);
  Tensor codes = Tensor::allocate(DType::kI32, {rows, words});
  auto* out = codes.mutable_data<std::uint32_t>();
  for (std::int64_t r = 0; r < rows; ++r) {
    pack_codes(to_codes(values.rows(r, r + 1), bits, name), bits, out + r * words);
  }
  return codes;
}

Tensor retyped(const Tensor& tensor, DType type, Shape shape) {
  const auto owner = std::make_shared<const Tensor>(tensor);
  return Tensor::view(type, std::move(shape), owner->bytes(), owner);
}

Tensor pack_rows(const Tensor& rows) {
  const std::int64_t count = rows.dim(0), row_bytes = rows.dim(1);
  const std::int64_t words = (row_bytes + kWordBytes - 1) / kWordBytes;
  if (words * kWordBytes == row_bytes) return retyped(rows, DType::kI32, {count, words});
  Tensor plane = Tensor::allocate(DType::kI32, {count, words});
  auto* to = static_cast<std::byte*>(plane.address());
  std::memset(to, 0, plane.byte_size());
  for (std::int64_t r = 0; r < count; ++r) {
    std::memcpy(to + r * words * kWordBytes, rows.bytes().data() + r * row_bytes,
                static_cast<std::size_t>(row_bytes));
  }
  return plane;
}

Tensor unpack_rows(const Tensor& codes, std::int64_t cols, DType type) {
  const std::int64_t rows = codes.dim(0), row_bytes = codes.dim(1) * kWordBytes;
  Tensor values = Tensor::allocate(type, {rows, cols});
  auto* out = static_cast<std::byte*>(values.address());
  const std::byte flip = type == DType::kI8 ? std::byte{0x80} : std::byte{0};  // - 128
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::byte* row = codes.bytes().data() + r * row_bytes;
    for (std::int64_t c = 0; c < cols; ++c) *out++ = row[c] ^ flip;
  }
  return values;
}

}  // namespace nibble
