// Rows of a key/value cache as pieces of 4, 8 or 16 bytes, and those as pairs of 16-bit numbers for
// the tensor cores. Codes stay codes: f16 numbers that take little arithmetic to make, code - kZero
// with kZero = -1024 for kInt8 and -16 for kInt4, and code / kUnit for kFp8; scale and offset of a
// row are applied to float32 sums: value = offset + scale * kUnit * (number + kZero).
#pragma once

#include <cstdint>
#include <type_traits>

#include "backends/cuda/device/kv_rows.cuh"
#include "backends/cuda/device/mma_m16n8k16.cuh"

namespace nibble::cuda {

template <KvType kType>
struct KvTraits {
  static constexpr bool kCodes = has_codes(kType);
  static constexpr int kBits = kType == KvType::kF32    ? 32
                               : kType == KvType::kInt8 ? 8
                               : kType == KvType::kFp8  ? 8
                               : kType == KvType::kInt4 ? 4
                                                        : 16;
  static constexpr int kHeader = kCodes ? kKvHeaderBytes : 0;
  static constexpr int kPieceBytes = kCodes ? 8 : 16;  // what rows are aligned to
  static constexpr float kZero = kType == KvType::kInt8   ? -1024.0f
                                 : kType == KvType::kInt4 ? -16.0f
                                                          : 0.0f;
  static constexpr float kUnit = kType == KvType::kFp8 ? kE4m3Unit : 1.0f;
  static constexpr bool kF16 = kCodes || kType == KvType::kF16;  // else products are of bf16
  using Pairs = std::conditional_t<kF16, F16Pairs, Bf16Pairs>;
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

// Bytes 0 and 1 (or 2 and 3) of a word as the f16 pair (1024 + byte, 1024 + byte).
__device__ __forceinline__ std::uint32_t low_codes(std::uint32_t word) {
  return __byte_perm(word, 0x64646464u, 0x4140);
}
__device__ __forceinline__ std::uint32_t high_codes(std::uint32_t word) {
  return __byte_perm(word, 0x64646464u, 0x4342);
}

// The same bytes as codes of e4m3: f16 numbers that are kE4m3Unit too small (kv_rows.cuh).
__device__ __forceinline__ std::uint32_t e4m3_pair(std::uint32_t bytes_on_top) {
  return (bytes_on_top & 0x80008000u) | (bytes_on_top >> 1 & 0x3f803f80u);
}
__device__ __forceinline__ std::uint32_t low_e4m3(std::uint32_t word) {
  return e4m3_pair(__byte_perm(word, 0, 0x1404));
}
__device__ __forceinline__ std::uint32_t high_e4m3(std::uint32_t word) {
  return e4m3_pair(__byte_perm(word, 0, 0x3424));
}

// Nibbles kIndex and kIndex + 4 of a word as the f16 pair (16 + code, 16 + code).
template <int kIndex>
__device__ __forceinline__ std::uint32_t nibble_codes(std::uint32_t word) {
  constexpr int kLeft = 6 - 4 * kIndex;
  const std::uint32_t moved = kLeft > 0 ? word << (kLeft & 31) : word >> (-kLeft & 31);
  return (moved & 0x03c003c0u) | 0x4c004c00u;
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
      pairs[4 * w] = nibble_codes<0>(word);
      pairs[4 * w + 1] = nibble_codes<1>(word);
      pairs[4 * w + 2] = nibble_codes<2>(word);
      pairs[4 * w + 3] = nibble_codes<3>(word);
    } else if constexpr (kType == KvType::kInt8) {
      pairs[2 * w] = low_codes(word);
      pairs[2 * w + 1] = high_codes(word);
    } else if constexpr (kType == KvType::kFp8) {
      pairs[2 * w] = low_e4m3(word);
      pairs[2 * w + 1] = high_e4m3(word);
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
      pairs[8 * w] = nibble_codes<0>(low);
      pairs[8 * w + 1] = nibble_codes<1>(low);
      pairs[8 * w + 2] = nibble_codes<2>(low);
      pairs[8 * w + 3] = nibble_codes<3>(low);
      pairs[8 * w + 4] = nibble_codes<0>(high);
      pairs[8 * w + 5] = nibble_codes<1>(high);
      pairs[8 * w + 6] = nibble_codes<2>(high);
      pairs[8 * w + 7] = nibble_codes<3>(high);
    } else if constexpr (kType == KvType::kInt8) {
      const std::uint32_t low = __byte_perm(a, b, 0x5140);  // bytes 0 of both, bytes 1 of both
      const std::uint32_t high = __byte_perm(a, b, 0x7362);
      pairs[4 * w] = low_codes(low);
      pairs[4 * w + 1] = high_codes(low);
      pairs[4 * w + 2] = low_codes(high);
      pairs[4 * w + 3] = high_codes(high);
    } else if constexpr (kType == KvType::kFp8) {
      const std::uint32_t low = __byte_perm(a, b, 0x5140);
      const std::uint32_t high = __byte_perm(a, b, 0x7362);
      pairs[4 * w] = low_e4m3(low);
      pairs[4 * w + 1] = high_e4m3(low);
      pairs[4 * w + 2] = low_e4m3(high);
      pairs[4 * w + 3] = high_e4m3(high);
    } else if constexpr (kType == KvType::kF32) {
      pairs[w] = Bf16Pairs::pack(__uint_as_float(a), __uint_as_float(b));
    } else {
      pairs[2 * w] = __byte_perm(a, b, 0x5410);
      pairs[2 * w + 1] = __byte_perm(a, b, 0x7632);
    }
  }
}

}  // namespace nibble::cuda
