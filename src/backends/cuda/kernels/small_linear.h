// Linear layers on packed weights of 4 or 8 bits for few rows of activations: as fast as the
// weights can be read.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backends/cuda/kernels/fragment_matrix.h"

namespace nibble::cuda {

inline constexpr int kSmallLinearMaxRows = 32;
inline constexpr int kSmallLinearMaxParts = 3;

// y[m, n] = sum_k x[m, k] w[n, k] + bias[n] for each part. x is rounded to bf16, codes less zero
// points are exact, products are summed in float32 group by group and then scaled; those of up to
// two rows of x are integers (device/small_linear_digits.cuh), whose sums are exact. The same bits
// at every run on one kind of device.
struct SmallLinear {
  const float* x = nullptr;  // [m, cols] on 16 bytes, rows x_stride floats apart (a multiple of 4)
  std::int64_t x_stride = 0;
  int m = 0;  // 1 ... kSmallLinearMaxRows
  // All alike.
  FragmentPart parts[kSmallLinearMaxParts];
  int part_count = 1;
  bool accumulate = false;  // added to what y holds
  // Two parts of the same shape, of 4 bits: y of the first is silu(first) * second, that of the
  // second is not written.
  bool silu_pair = false;
  bool dependent_launch = false;  // may start before the kernel ahead of it in the stream has ended
};

// How the work is cut.
struct SmallLinearTile {
  int slices = 1;  // of k, for the blocks of threads of a cluster: 1 ... 8
  int splits = 1;  // of a slice, for warps of a block: 1, 2, 4 or 8
  int tiles = 2;   // of 16 rows that a warp sums at a time: 2, or 4 (3 to 8 rows of x, 4 bits)
  int blocks = 1;  // of threads on a multiprocessor: 1, or 2 where they fit
};

// The cut expected to be fastest on the current device.
SmallLinearTile choose_small_linear_tile(const SmallLinear& args);

// Needs compute capability 9.0, or 8.0 with one slice and no splits. Where the tile's slices of x
// do not fit into shared memory, fewer rows of x are taken at a time. cudaErrorInvalidValue when
// the arguments break what is said above or the tile has more slices than k has chunks of 128.
cudaError_t small_linear(const SmallLinear& args, const SmallLinearTile& tile, cudaStream_t stream);

}  // namespace nibble::cuda
