// 4-bit codes in registers (backends/cuda/fragment_weight.h) to bf16.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace nibble::cuda {

// The bf16 pair (128 + zero, 128 + zero), exact up to 127.
__device__ __forceinline__ std::uint32_t zero_pair(std::uint32_t zero) {
  return zero * 0x10001u + 0x43004300u;
}

__device__ __forceinline__ std::uint32_t subtract_pairs(std::uint32_t a, std::uint32_t b) {
  union Pair {
    std::uint32_t bits;
    __nv_bfloat162 value;
  };
  Pair x{a};
  Pair y{b};
  x.value = __hsub2(x.value, y.value);
  return x.bits;
}

// Code - zero of a lane's 8 codes of a 16 x 16 tile, exactly: operand A of mma.m16n8k16. The pairs
// of zero points are those of rows g and g + 8. A code in the low bits of 0x4300 is 128 + code.
__device__ __forceinline__ void expand_codes(std::uint32_t word, std::uint32_t upper_zero,
                                             std::uint32_t lower_zero, std::uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    std::uint32_t biased;  // (word & 0x000f000f) | 0x43004300, in one instruction
    asm("lop3.b32 %0, %1, %2, %3, 0xea;"
        : "=r"(biased)
        : "r"(word >> (4 * i)), "r"(0x000f000fu), "r"(0x43004300u));
    a[i] = subtract_pairs(biased, i % 2 == 0 ? upper_zero : lower_zero);
  }
}

// A stored scale, bf16 or f16.
__device__ __forceinline__ float scale_of(const std::uint16_t* at, bool bf16) {
  return bf16 ? __uint_as_float(static_cast<std::uint32_t>(*at) << 16)
              : __half2float(__ushort_as_half(*at));
}

}  // namespace nibble::cuda
