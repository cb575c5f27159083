// The bit packing of compressed-tensors: pack-quantized words, old and new, and zero points.
// Source: compressed-tensors, compressors/pack_quantized; pull request 715 for the change of 0.17.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace nibble {

// kDense: code i occupies bits [i * bits, (i + 1) * bits) of the row (the canonical codes plane).
// kPadded: every word holds 32 / bits whole codes and its upper bits are unused (before 0.17).
// Where bits divides 32 the two are the same.
enum class Packing { kDense, kPadded };

// 32-bit words that hold `count` codes.
std::int64_t packed_words(std::int64_t count, int bits, Packing packing);

// The packing of `words` words for `count` codes. Widths alone decide unless both give as many;
// then `prefer` does. kCorrupt, naming `what`, when neither fits.
Packing detect_packing(std::int64_t count, int bits, std::int64_t words, Packing prefer,
                       const std::string& what);

// I32 [rows, padded words] to the dense I32 [rows, dense words] of `cols` codes.
Tensor to_dense_packing(const Tensor& padded, std::int64_t cols, int bits);

// Zero points, stored along the rows: I32 [packed words of rows, groups] to and from U8 [rows,
// groups].
Tensor unpack_zeros(const Tensor& packed, std::int64_t rows, int bits, Packing packing);
Tensor pack_zeros(const Tensor& zeros, int bits);

}  // namespace nibble
