// A warp's matrix product D[16, 8] += A[16, 32] B[32, 8] of bytes, summed in int32 (PTX
// mma.m16n8k32). With g = lane / 4 and c = lane % 4 a lane holds
//   A  a0 = (g; 4c ... 4c+3)   a1 = (g+8; the same)   a2 = (g; 16 + 4c ...)   a3 = (g+8; the same)
//   B  b0 = (4c ... 4c+3; g)   b1 = (16 + 4c ...; g)
//   D  d0, d1 = (g; 2c, 2c+1)   d2, d3 = (g+8; 2c, 2c+1)
// each register of A and B four numbers, the first in the lowest byte.
#pragma once

#include <cstdint>

namespace nibble::cuda {

// A without signs, B with.
__device__ __forceinline__ void multiply_bytes(std::uint32_t (&d)[4], const std::uint32_t (&a)[4],
                                               std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace nibble::cuda
