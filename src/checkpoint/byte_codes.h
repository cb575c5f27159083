// Codes that are stored as bytes, to and from the canonical codes plane.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace nibble {

// Signed values I8, in the range of `bits`, as codes from 0 on. kCorrupt, naming the tensor, when
// one is out of range.
std::vector<std::uint8_t> to_codes(const Tensor& values, int bits, const std::string& name);
// The codes plane of such a matrix [rows, cols].
Tensor pack_signed(const Tensor& values, int bits, const std::string& name);

// The same bytes as another type and shape of as many.
Tensor retyped(const Tensor& tensor, DType type, Shape shape);

// Rows of bytes [rows, bytes] that are a bit stream of codes already, as I32 [rows, words]: mapped,
// or copied and padded where rows end inside a word.
Tensor pack_rows(const Tensor& rows);
// The reverse for 8-bit codes: [rows, cols] of I8, which are 128 less, or of another type of one
// byte with the same bits.
Tensor unpack_rows(const Tensor& codes, std::int64_t cols, DType type);

}  // namespace nibble
