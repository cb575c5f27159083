#include "checkpoint/pack_quantized.h"

#include <cstring>
#include <vector>

#include "formats/affine.h"

namespace nibble {
namespace {

constexpr std::int64_t kWordBits = 32;

std::uint32_t load_word(const std::byte* words, std::int64_t index) {
  std::uint32_t word = 0;
  std::memcpy(&word, words + static_cast<std::size_t>(index) * sizeof word, sizeof word);
  return word;
}

// Codes out of words of kPadded.
void unpack_padded(const std::byte* words, int bits, std::span<std::uint8_t> codes) {
  const auto per_word = static_cast<std::size_t>(kWordBits / bits);
  const std::uint32_t mask = (1u << bits) - 1;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const std::uint32_t word = load_word(words, static_cast<std::int64_t>(i / per_word));
    const auto shift = static_cast<int>(i % per_word) * bits;
    codes[i] = static_cast<std::uint8_t>((word >> shift) & mask);
  }
}

}  // namespace

std::int64_t packed_words(std::int64_t count, int bits, Packing packing) {
  if (packing == Packing::kDense) {
    // Split so that absurd counts of hostile files do not overflow.
    return count / kWordBits * bits + (count % kWordBits * bits + kWordBits - 1) / kWordBits;
  }
  const std::int64_t per_word = kWordBits / bits;
  return count / per_word + (count % per_word != 0 ? 1 : 0);
}

Packing detect_packing(std::int64_t count, int bits, std::int64_t words, Packing prefer,
                       const std::string& what) {
  const bool dense = words == packed_words(count, bits, Packing::kDense);
  const bool padded = words == packed_words(count, bits, Packing::kPadded);
  if (!dense && !padded) {
    fail(ErrorKind::kCorrupt, "{}: {} words cannot hold {} codes of {} bits", what, words, count,
         bits);
  }
  if (dense && padded) return kWordBits % bits == 0 ? Packing::kDense : prefer;
  return dense ? Packing::kDense : Packing::kPadded;
}

Tensor to_dense_packing(const Tensor& padded, std::int64_t cols, int bits) {
  const std::int64_t rows = padded.dim(0);
  const std::int64_t words = packed_words(cols, bits, Packing::kDense);
  Tensor dense = Tensor::allocate(DType::kI32, {rows, words});
  auto* out = dense.mutable_data<std::uint32_t>();
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(cols));
  for (std::int64_t r = 0; r < rows; ++r) {
    unpack_padded(padded.rows(r, r + 1).bytes().data(), bits, codes);
    pack_codes(codes, bits, out + r * words);
  }
  return dense;
}

Tensor unpack_zeros(const Tensor& packed, std::int64_t rows, int bits, Packing packing) {
  const std::int64_t words = packed.dim(0), groups = packed.dim(1);
  Tensor zeros = Tensor::allocate(DType::kU8, {rows, groups});
  auto* out = zeros.mutable_data<std::uint8_t>();
  std::vector<std::uint32_t> column(static_cast<std::size_t>(words));
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows));
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t w = 0; w < words; ++w) {
      column[static_cast<std::size_t>(w)] = load_word(packed.bytes().data(), w * groups + g);
    }
    const auto* bytes = reinterpret_cast<const std::byte*>(column.data());
    if (packing == Packing::kDense) {
      unpack_codes(bytes, bits, 0, rows, codes.data());
    } else {
      unpack_padded(bytes, bits, codes);
    }
    for (std::int64_t r = 0; r < rows; ++r)
      out[r * groups + g] = codes[static_cast<std::size_t>(r)];
  }
  return zeros;
}

Tensor pack_zeros(const Tensor& zeros, int bits) {
  const std::int64_t rows = zeros.dim(0), groups = zeros.dim(1);
  const std::int64_t words = packed_words(rows, bits, Packing::kDense);
  Tensor packed = Tensor::allocate(DType::kI32, {words, groups});
  auto* out = packed.mutable_data<std::uint32_t>();
  const auto* in = reinterpret_cast<const std::uint8_t*>(zeros.bytes().data());
  std::vector<std::uint32_t> column(static_cast<std::size_t>(words));
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows));
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t r = 0; r < rows; ++r) codes[static_cast<std::size_t>(r)] = in[r * groups + g];
    pack_codes(codes, bits, column.data());
    for (std::int64_t w = 0; w < words; ++w)
      out[w * groups + g] = column[static_cast<std::size_t>(w)];
  }
  return packed;
}

}  // namespace nibble
