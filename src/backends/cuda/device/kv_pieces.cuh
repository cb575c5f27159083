// Rows of a key/value cache as pieces of 4, 8 or 16 bytes, and those as pairs of 16-bit numbers for
// the tensor cores. Codes stay codes: they are exact as 16-bit numbers, and scale and offset of a
// row are applied to float32 sums.
//
// Of kInt8 the numbers are code - kZero with kZero = 128. Of kInt4 they are 128 + code, which takes
// no arithmetic to make, so kZero = -128. With that: value = offset + scale * (number + kZero).
#pragma once

#include <cstdint>

#include "backends/cuda/device/kv_rows.cuh"
#include "backends/cuda/device/mma_m16n8k16.cuh"

namespace nibble::cuda {

template <KvType kType>
struct KvTraits {
  static constexpr bool kCodes = kType == KvType::kInt8 || kType == KvType::kInt4;
  static constexpr int kBits = kType == KvType::kF32    ? 32
                               : kType == KvType::kInt8 ? 8
                               : kType == KvType::kInt4 ? 4
                                                        : 16;
  static constexpr int kHeader = kCodes ? kKvHeaderBytes : 0;
  static constexpr int kPieceBytes = kCodes ? 8 : 16;  // what rows are aligned to
  static constexpr float kZero = kType == KvType::kInt8 ? 128.0f : -128.0f;
};
template <KvType kType>
struct PairsOf {
  using Type = Bf16Pairs;
};
template <>
struct PairsOf<KvType::kF16> {
  using Type = F16Pairs;
};

// A piece as 32-bit words.
template <int kBytes>
struct alignas(kBytes) Piece {
  std::uint32_t words[kBytes / 4];
};

template <int kBytes>
__device__ __forceinline__ Piece<kBytes> load_piece(const std::uint8_t* shared) {
  return *reinterpret_cast<const Piece<kBytes>*>(shared);
}

// Byte i (0..3) of a word of kInt8 codes as the float code - 128, which has zeros in its low half.
template <int kByte>
__device__ __forceinline__ std::uint32_t centered_code(std::uint32_t word) {
  const std::uint32_t biased = __byte_perm(word, 0x4b000000u, 0x7440 | kByte);  // 2^23 + code
  return __float_as_uint(__uint_as_float(biased) - 8388736.0f);
}

// Nibbles kIndex and kIndex + 4 of a word as the bf16 pair (128 + code, 128 + code).
template <int kIndex>
__device__ __forceinline__ std::uint32_t biased_codes(std::uint32_t word) {
  return (word >> 4 * kIndex & 0x000f000fu) | 0x43004300u;
}

// The elements that pair p of pairs_of_row holds.
template <KvType kType>
__host__ __device__ constexpr int pair_element(int pair, bool high) {
  if (kType == KvType::kInt4) return pair / 4 * 8 + pair % 4 + (high ? 4 : 0);
  return 2 * pair + (high ? 1 : 0);
}

// All elements of one row's piece as pairs, in the order of pair_element.
template <KvType kType, int kBytes, int kPairs = kBytes * 4 / KvTraits<kType>::kBits>
__device__ __forceinline__ void pairs_of_row(const Piece<kBytes>& row,
                                             std::uint32_t (&pairs)[kPairs]) {
#pragma unroll
  for (int w = 0; w < kBytes / 4; ++w) {
    const std::uint32_t word = row.words[w];
    if constexpr (kType == KvType::kInt4) {
      pairs[4 * w] = biased_codes<0>(word);
      pairs[4 * w + 1] = biased_codes<1>(word);
      pairs[4 * w + 2] = biased_codes<2>(word);
      pairs[4 * w + 3] = biased_codes<3>(word);
    } else if constexpr (kType == KvType::kInt8) {
      pairs[2 * w] = __byte_perm(centered_code<0>(word), centered_code<1>(word), 0x7632);
      pairs[2 * w + 1] = __byte_perm(centered_code<2>(word), centered_code<3>(word), 0x7632);
    } else if constexpr (kType == KvType::kF32) {
      if (w % 2 == 0) {
        pairs[w / 2] = Bf16Pairs::pack(__uint_as_float(word), __uint_as_float(row.words[w + 1]));
      }
    } else {
      pairs[w] = word;
    }
  }
}

// Pairs of the same element of two rows' pieces, the first row in the low half, in order.
template <KvType kType, int kBytes, int kCount = kBytes * 8 / KvTraits<kType>::kBits>
__device__ __forceinline__ void pairs_of_rows(const Piece<kBytes>& first,
                                              const Piece<kBytes>& second,
                                              std::uint32_t (&pairs)[kCount]) {
#pragma unroll
  for (int w = 0; w < kBytes / 4; ++w) {
    const std::uint32_t a = first.words[w];
    const std::uint32_t b = second.words[w];
    if constexpr (kType == KvType::kInt4) {
      const std::uint32_t low = __byte_perm(a, b, 0x5410);
      const std::uint32_t high = __byte_perm(a, b, 0x7632);
      pairs[8 * w] = biased_codes<0>(low);
      pairs[8 * w + 1] = biased_codes<1>(low);
      pairs[8 * w + 2] = biased_codes<2>(low);
      pairs[8 * w + 3] = biased_codes<3>(low);
      pairs[8 * w + 4] = biased_codes<0>(high);
      pairs[8 * w + 5] = biased_codes<1>(high);
      pairs[8 * w + 6] = biased_codes<2>(high);
      pairs[8 * w + 7] = biased_codes<3>(high);
    } else if constexpr (kType == KvType::kInt8) {
      pairs[4 * w] = __byte_perm(centered_code<0>(a), centered_code<0>(b), 0x7632);
      pairs[4 * w + 1] = __byte_perm(centered_code<1>(a), centered_code<1>(b), 0x7632);
      pairs[4 * w + 2] = __byte_perm(centered_code<2>(a), centered_code<2>(b), 0x7632);
      pairs[4 * w + 3] = __byte_perm(centered_code<3>(a), centered_code<3>(b), 0x7632);
    } else if constexpr (kType == KvType::kF32) {
      pairs[w] = Bf16Pairs::pack(__uint_as_float(a), __uint_as_float(b));
    } else {
      pairs[2 * w] = __byte_perm(a, b, 0x5410);
      pairs[2 * w + 1] = __byte_perm(a, b, 0x7632);
    }
  }
}

}  // namespace nibble::cuda
