// y = x W^T (+ bias) for FP8 (E4M3) weights and activations and many rows of x, on Hopper's
// warpgroup products.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

enum class ScaleType { kF32, kF16, kBf16 };

// E4M3 weights whose scales lie as those of 4-bit weights do (kernels/w4_matrix.h).
struct Fp8Matrix {
  const void* codes = nullptr;   // E4M3 [rows, cols], contiguous, on 16 bytes
  const void* scales = nullptr;  // [rows / 64, groups, 64]; with one group [rows]
  ScaleType scale_type = ScaleType::kF32;
  std::int64_t rows = 0;    // a multiple of 64
  std::int64_t cols = 0;    // a multiple of 128
  std::int64_t groups = 1;  // 1 or cols / 128
};

struct Fp8Large {
  const void* x = nullptr;          // E4M3 [m, cols], contiguous, on 16 bytes (quantize_fp8.h)
  const float* x_scales = nullptr;  // [m]
  float* y = nullptr;               // [m, rows], y_stride floats from row to row; on 16 bytes
  Fp8Matrix weight;
  const float* bias = nullptr;  // [rows] or null
  std::int64_t m = 0;
  std::int64_t y_stride = 0;      // a multiple of 4
  bool accumulate = false;        // y += instead of y =
  bool dependent_launch = false;  // may start before the kernel ahead of it in the stream has ended
};

// How the product is cut. A block of threads computes 128 rows of W by `tokens` of x.
struct Fp8LargeTile {
  int tokens = 0;  // 128 or 256
  int share = 1;   // 1, or 2 blocks of a cluster with the same tokens that share their loads
  int split = 1;   // 1, or 2 blocks of a cluster with the same tile that share out k
};

// The tile expected to be fastest for W [n, k] on a device of so many multiprocessors
// (large_plan.cc).
Fp8LargeTile choose_fp8_large_tile(std::int64_t m, std::int64_t n, std::int64_t k,
                                   int multiprocessors);

// Needs compute capability 9.0. Deterministic. The tensor cores keep few bits of long sums of E4M3
// products, so these are added to float32 sums, times the scale of the group, every 128 of k.
// cudaErrorInvalidValue for sizes or tiles not as above.
cudaError_t fp8_large(const Fp8Large& args, const Fp8LargeTile& tile, cudaStream_t stream);

}  // namespace nibble::cuda
