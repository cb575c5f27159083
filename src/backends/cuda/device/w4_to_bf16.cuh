// 4-bit codes in fragment order (backends/cuda/fragment_weight.h) to operand A of the tensor cores.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace nibble::cuda {

// Of one row of a fragment and one group of k, each twice: the magic number of the codes plus the
// zero point, and the scale.
struct W4RowScale {
  __nv_bfloat162 zero;  // 128 + zero point
  __nv_bfloat162 scale;
};

// The scale's 16 bits are bfloat16 or float16; the latter is rounded to bfloat16.
__device__ __forceinline__ W4RowScale w4_row_scale(std::uint16_t scale, bool scale_is_bf16,
                                                   std::uint32_t zero) {
  const __nv_bfloat16 rounded = scale_is_bf16
                                    ? __ushort_as_bfloat16(scale)
                                    : __float2bfloat16_rn(__half2float(__ushort_as_half(scale)));
  return {__bfloat162bfloat162(__ushort_as_bfloat16(static_cast<std::uint16_t>(0x4300u + zero))),
          __bfloat162bfloat162(rounded)};
}

// 0x43XY is 128 + 0xXY as bfloat16, for XY below 128: codes need no conversion, only the high bits.
// In one instruction, which takes the second of two constants from a register.
__device__ __forceinline__ std::uint32_t w4_pair(std::uint32_t word, int i) {
  constexpr int kAndOr = (0xf0 & 0xcc) | 0xaa;
  std::uint32_t pair;
  asm("lop3.b32 %0, %1, 0x000f000f, %2, %3;"
      : "=r"(pair)
      : "r"(word >> (4 * i)), "r"(0x43004300u), "n"(kAndOr));
  return pair;
}

// The four registers of the fragment of a word: (code - zero) * scale, rounded once.
__device__ __forceinline__ void w4_fragment(std::uint32_t word, const W4RowScale (&rows)[2],
                                            std::uint32_t* a) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t pair = w4_pair(word, i);
    const W4RowScale& row = rows[i % 2];
    const __nv_bfloat162 code = __hsub2(reinterpret_cast<const __nv_bfloat162&>(pair), row.zero);
    const __nv_bfloat162 value = __hmul2(code, row.scale);
    a[i] = reinterpret_cast<const std::uint32_t&>(value);
  }
}

}  // namespace nibble::cuda
