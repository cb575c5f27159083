#include "checkpoint/pack_awq.h"

#include <cstring>
#include <vector>

#include "checkpoint/pack_quantized.h"
#include "formats/affine.h"

namespace nibble {
namespace {

constexpr int kBits = 4;
constexpr int kShift[kAwqPerWord] = {0, 16, 4, 20, 8, 24, 12, 28};  // of output j in its word

// Column `index` of words [n, words] as 8 runs of n nibbles, and back.
void unpack_column(const Tensor& words, std::int64_t index, std::uint8_t* nibbles) {
  const std::int64_t n = words.dim(0);
  const std::byte* from = words.bytes().data();
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint32_t word = 0;
    std::memcpy(&word, from + (i * words.dim(1) + index) * 4, 4);
    for (std::int64_t j = 0; j < kAwqPerWord; ++j) {
      nibbles[j * n + i] = static_cast<std::uint8_t>(word >> kShift[j] & 15);
    }
  }
}

void pack_column(const std::uint8_t* nibbles, std::int64_t index, Tensor& words) {
  const std::int64_t n = words.dim(0);
  auto* to = words.mutable_data<std::uint32_t>();
  for (std::int64_t i = 0; i < n; ++i) {
    std::uint32_t word = 0;
    for (std::int64_t j = 0; j < kAwqPerWord; ++j) {
      word |= static_cast<std::uint32_t>(nibbles[j * n + i]) << kShift[j];
    }
    to[i * words.dim(1) + index] = word;
  }
}

}  // namespace

Tensor awq_gemm_codes(const Tensor& words) {
  const std::int64_t cols = words.dim(0);
  const std::int64_t row_words = packed_words(cols, kBits, Packing::kDense);
  Tensor codes = Tensor::allocate(DType::kI32, {words.dim(1) * kAwqPerWord, row_words});
  auto* out = codes.mutable_data<std::uint32_t>();
  std::vector<std::uint8_t> nibbles(static_cast<std::size_t>(cols * kAwqPerWord));
  for (std::int64_t w = 0; w < words.dim(1); ++w) {
    unpack_column(words, w, nibbles.data());
    for (std::int64_t j = 0; j < kAwqPerWord; ++j) {
      const auto row = std::span(nibbles).subspan(static_cast<std::size_t>(j * cols),
                                                  static_cast<std::size_t>(cols));
      pack_codes(row, kBits, out + (w * kAwqPerWord + j) * row_words);
    }
  }
  return codes;
}

Tensor pack_awq_gemm_codes(const Tensor& codes, std::int64_t cols) {
  Tensor words = Tensor::allocate(DType::kI32, {cols, codes.dim(0) / kAwqPerWord});
  std::vector<std::uint8_t> nibbles(static_cast<std::size_t>(cols * kAwqPerWord));
  for (std::int64_t w = 0; w < words.dim(1); ++w) {
    for (std::int64_t j = 0; j < kAwqPerWord; ++j) {
      const std::int64_t row = w * kAwqPerWord + j;
      unpack_codes(codes.rows(row, row + 1).bytes().data(), kBits, 0, cols,
                   nibbles.data() + j * cols);
    }
    pack_column(nibbles.data(), w, words);
  }
  return words;
}

Tensor awq_gemm_zeros(const Tensor& words) {
  const std::int64_t groups = words.dim(0);
  Tensor zeros = Tensor::allocate(DType::kU8, {words.dim(1) * kAwqPerWord, groups});
  for (std::int64_t w = 0; w < words.dim(1); ++w) {
    unpack_column(words, w, zeros.mutable_data<std::uint8_t>() + w * kAwqPerWord * groups);
  }
  return zeros;
}

Tensor pack_awq_gemm_zeros(const Tensor& zeros) {
  const std::int64_t groups = zeros.dim(1);
  Tensor words = Tensor::allocate(DType::kI32, {groups, zeros.dim(0) / kAwqPerWord});
  const auto* from = reinterpret_cast<const std::uint8_t*>(zeros.bytes().data());
  for (std::int64_t w = 0; w < words.dim(1); ++w) {
    pack_column(from + w * kAwqPerWord * groups, w, words);
  }
  return words;
}

}  // namespace nibble
