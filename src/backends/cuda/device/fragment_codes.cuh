// Codes in fragment order (backends/cuda/fragment_weight.h) to bf16, in registers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace nibble::cuda {

// Code - zero of a lane's 8 codes of a 16 x 16 tile, exactly: operand A of mma.m16n8k16.
//
//   kTiles   tiles in 16 bytes of a lane
//   zero     a zero point, as expand takes those of rows g and g + 8
//   expand   tile number `tile` of the 16 bytes
template <int kBits>
struct FragmentCodes;

// A code in the low bits of 0x4300 is the bf16 128 + code.
template <>
struct FragmentCodes<4> {
  static constexpr int kTiles = 4;

  // The pair (128 + zero, 128 + zero), exact up to 127.
  static __device__ __forceinline__ std::uint32_t zero(std::uint32_t zero) {
    return zero * 0x10001u + 0x43004300u;
  }

  static __device__ __forceinline__ void expand(const uint4& codes, int tile,
                                                std::uint32_t upper_zero, std::uint32_t lower_zero,
                                                std::uint32_t (&a)[4]) {
    const std::uint32_t word = tile == 0   ? codes.x
                               : tile == 1 ? codes.y
                               : tile == 2 ? codes.z
                                           : codes.w;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      std::uint32_t biased;  // (word & 0x000f000f) | 0x43004300, in one instruction
      asm("lop3.b32 %0, %1, %2, %3, 0xea;"
          : "=r"(biased)
          : "r"(word >> (4 * i)), "r"(0x000f000fu), "r"(0x43004300u));
      a[i] = subtract(biased, i % 2 == 0 ? upper_zero : lower_zero);
    }
  }

 private:
  static __device__ __forceinline__ std::uint32_t subtract(std::uint32_t a, std::uint32_t b) {
    union Pair {
      std::uint32_t bits;
      __nv_bfloat162 value;
    };
    Pair x{a};
    Pair y{b};
    x.value = __hsub2(x.value, y.value);
    return x.bits;
  }
};

// A code in the low byte of 0x4b000000 is the float 2^23 + code; differences of two codes have 8
// bits, so the upper halves of two floats are their pair of bf16.
template <>
struct FragmentCodes<8> {
  static constexpr int kTiles = 2;

  static __device__ __forceinline__ std::uint32_t zero(std::uint32_t zero) { return kMagic | zero; }

  static __device__ __forceinline__ void expand(const uint4& codes, int tile,
                                                std::uint32_t upper_zero, std::uint32_t lower_zero,
                                                std::uint32_t (&a)[4]) {
    const std::uint32_t words[2] = {tile == 0 ? codes.x : codes.z, tile == 0 ? codes.y : codes.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t zero = i % 2 == 0 ? upper_zero : lower_zero;
      const std::uint32_t first = subtract(words[i / 2], i % 2 * 2, zero);
      const std::uint32_t second = subtract(words[i / 2], i % 2 * 2 + 1, zero);
      a[i] = __byte_perm(first, second, 0x7632);
    }
  }

 private:
  static constexpr std::uint32_t kMagic = 0x4b000000u;

  // Byte `i` of the word.
  static __device__ __forceinline__ std::uint32_t subtract(std::uint32_t word, int i,
                                                           std::uint32_t zero) {
    const auto place = static_cast<std::uint32_t>(i);
    const std::uint32_t biased = __byte_perm(word, kMagic, 0x7440u | place);
    return __float_as_uint(__uint_as_float(biased) - __uint_as_float(zero));
  }
};

// A lane's codes as bytes without signs: operand A of mma.m16n8k32, of two tiles of 16 columns. Of
// each tile a register has columns 2c, 2c + 8, 2c + 1 and 2c + 9, in this order.
//
//   kLower   codes of row g + 8 come times this
//   expand   tiles 2 `pair` and 2 `pair` + 1 of the 64 or 32 columns in 16 bytes
template <int kBits>
struct ByteCodes;

template <>
struct ByteCodes<4> {
  static constexpr int kPairs = 2;  // in 16 bytes of a lane
  static constexpr int kLower = 16;

  static __device__ __forceinline__ void expand(const uint4& codes, int pair,
                                                std::uint32_t (&a)[4]) {
    const std::uint32_t words[2] = {pair == 0 ? codes.x : codes.z, pair == 0 ? codes.y : codes.w};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      a[2 * i] = words[i] & 0x0f0f0f0fu;
      a[2 * i + 1] = words[i] & 0xf0f0f0f0u;
    }
  }
};

template <>
struct ByteCodes<8> {
  static constexpr int kPairs = 1;
  static constexpr int kLower = 1;

  static __device__ __forceinline__ void expand(const uint4& codes, int, std::uint32_t (&a)[4]) {
    a[0] = __byte_perm(codes.x, codes.y, 0x5140);
    a[1] = __byte_perm(codes.x, codes.y, 0x7362);
    a[2] = __byte_perm(codes.z, codes.w, 0x5140);
    a[3] = __byte_perm(codes.z, codes.w, 0x7362);
  }
};

// A stored scale, bf16 or f16.
__device__ __forceinline__ float scale_of(const std::uint16_t* at, bool bf16) {
  return bf16 ? __uint_as_float(static_cast<std::uint32_t>(*at) << 16)
              : __half2float(__ushort_as_half(*at));
}

}  // namespace nibble::cuda
