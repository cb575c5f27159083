// y = x W^T (+ bias) for 4-bit weights and many rows of x, on Hopper's warpgroup products.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backends/cuda/kernels/fragment_matrix.h"

namespace nibble::cuda {

struct W4Large {
  const void* x = nullptr;  // bfloat16 [m, cols], contiguous, on 16 bytes (kernels/round_rows.h)
  float* y = nullptr;       // [m, rows], y_stride floats from row to row; on 16 bytes
  FragmentMatrix weight;    // of 4 bits
  const float* bias = nullptr;  // [rows] or null
  std::int64_t m = 0;
  std::int64_t y_stride = 0;      // a multiple of 4
  bool accumulate = false;        // y += instead of y =
  bool dependent_launch = false;  // may start before the kernel ahead of it in the stream has ended
};

// How the product is cut. A block of threads computes `rows` of W by `tokens` of x.
struct W4LargeTile {
  int rows = 0;    // 128, or 256 with 64 tokens
  int tokens = 0;  // 64, 128 or 256
  int share = 1;   // 1, or 2 blocks of a cluster with the same tokens that share their loads
  int split =
      1;  // blocks of a cluster with the same tile that share out k: 1, 2, or 4 with 64 tokens
};

// The tile expected to be fastest for W [n, k] on a device of so many multiprocessors
// (w4_large_tile.cc).
W4LargeTile choose_w4_large_tile(std::int64_t m, std::int64_t n, std::int64_t k,
                                 int multiprocessors);

// Needs compute capability 9.0. Deterministic. x, scales and W's values are rounded to bfloat16,
// sums are float32. cudaErrorInvalidValue for sizes or tiles not as above.
cudaError_t w4_large(const W4Large& args, const W4LargeTile& tile, cudaStream_t stream);

}  // namespace nibble::cuda
