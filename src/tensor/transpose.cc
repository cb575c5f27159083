#include "tensor/transpose.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace nibble {
namespace {

template <class T>
void transpose_into(const Tensor& in, Tensor& out) {
  const std::int64_t rows = in.dim(0), cols = in.dim(1);
  const std::byte* from = in.bytes().data();
  auto* to = out.mutable_data<T>();
  constexpr std::int64_t kTile = 32;  // both sides stay in the cache
  for (std::int64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (std::int64_t c0 = 0; c0 < cols; c0 += kTile) {
      for (std::int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) {
        for (std::int64_t c = c0; c < std::min(cols, c0 + kTile); ++c) {
          std::memcpy(&to[c * rows + r], from + (r * cols + c) * std::int64_t{sizeof(T)},
                      sizeof(T));
        }
      }
    }
  }
}

}  // namespace

Tensor transposed(const Tensor& matrix) {
  NIBBLE_CHECK(matrix.shape().size() == 2);
  Tensor out = Tensor::allocate(matrix.dtype(), {matrix.dim(1), matrix.dim(0)});
  switch (dtype_size(matrix.dtype())) {
    case 1:
      transpose_into<std::uint8_t>(matrix, out);
      break;
    case 2:
      transpose_into<std::uint16_t>(matrix, out);
      break;
    case 4:
      transpose_into<std::uint32_t>(matrix, out);
      break;
    default:
      transpose_into<std::uint64_t>(matrix, out);
  }
  return out;
}

}  // namespace nibble
