// The way of x into the warps of kernels/small_linear.h: a slice of it in shared memory, as bf16 in
// the order of B fragments.
#pragma once

#include <cuda_bf16.h>

#include "backends/cuda/device/small_linear_shape.cuh"

namespace nibble::cuda::small {

// 16 bytes of x in shared memory hold operand B of two tiles of 16 along k for one lane: words
// (k 2c, 2c + 1), (k 2c + 8, + 9) of each. A row of x is 128 bytes a unit, lanes side by side; odd
// rows have their halves exchanged, so that the 8 lanes of a phase meet 32 banks.
__device__ __forceinline__ int pair_offset(int pair, int token) {
  const int tile = pair >> 3;
  const int half = (tile >> 1) ^ (token & 1);
  return half * 64 + (pair & 3) * 16 + (tile & 1) * 8 + (pair >> 2 & 1) * 4;
}

__device__ __forceinline__ void store_quad(unsigned char* shared, int m, int token, int quad,
                                           float4 value) {
  unsigned char* row = shared + (quad / 16 * m + token) * kUnitBytes;
  const int pair = quad % 16 * 2;
  *reinterpret_cast<__nv_bfloat162*>(row + pair_offset(pair, token)) =
      __floats2bfloat162_rn(value.x, value.y);
  *reinterpret_cast<__nv_bfloat162*>(row + pair_offset(pair + 1, token)) =
      __floats2bfloat162_rn(value.z, value.w);
}

// The block's slice of x to bf16: [units of the slice][m] rows of 128 bytes, zeros beyond the last
// column.
__device__ inline void convert_slice(const Arguments& args, const Range& range,
                                     unsigned char* shared) {
  constexpr int kBatch = 8;
  const int quads = range.chunks * 32;  // of one row
  const int valid = min(quads, args.units * 16 - range.first_chunk * 32);
  const float* x = args.x + range.first_chunk * 128;
  int quad = static_cast<int>(threadIdx.x);
  int token = 0;
  const auto settle = [&] {
    while (quad >= quads && token < args.m) {
      quad -= quads;
      ++token;
    }
  };
  settle();
  while (token < args.m) {
    float4 values[kBatch];
    int tokens[kBatch];
    int quad_of[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      tokens[b] = token;
      quad_of[b] = quad;
      values[b] = make_float4(0, 0, 0, 0);
      if (token < args.m && quad < valid) {
        values[b] = *reinterpret_cast<const float4*>(x + token * args.x_stride + quad * 4);
      }
      quad += kThreads;
      settle();
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (tokens[b] < args.m) store_quad(shared, args.m, tokens[b], quad_of[b], values[b]);
    }
  }
}

}  // namespace nibble::cuda::small
