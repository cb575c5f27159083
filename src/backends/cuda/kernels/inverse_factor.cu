// Bound by memory.
#include <algorithm>

#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/kernels/grid.h"
#include "backends/cuda/kernels/inverse_factor.h"

namespace nibble::cuda {
namespace {

__global__ void __launch_bounds__(kRowThreads) reverse(double* h, std::int64_t count) {
  const std::int64_t stride = gridDim.x * std::int64_t{kRowThreads};
  for (std::int64_t i = blockIdx.x * std::int64_t{kRowThreads} + threadIdx.x; i < count / 2;
       i += stride) {
    const double first = h[i];
    h[i] = h[count - 1 - i];
    h[count - 1 - i] = first;
  }
}

__global__ void __launch_bounds__(kRowThreads) turn_factor(ReversedFactor args) {
  const std::int64_t last = args.n - 1;
  for (std::int64_t i = blockIdx.y; i < args.n; i += gridDim.y) {
    for (std::int64_t j = blockIdx.x * std::int64_t{kRowThreads} + threadIdx.x; j < args.n;
         j += gridDim.x * std::int64_t{kRowThreads}) {
      const double value = j < i ? 0.0 : args.lower[(last - i) * args.n + last - j];
      args.upper[i * args.n + j] = static_cast<float>(value);
      if (i == j && !(value > 0 && isfinite(value))) *args.bad = 1;
    }
  }
}

}  // namespace

cudaError_t reverse_square(double* h, std::int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  constexpr std::int64_t kMostBlocks = 8192;
  const std::int64_t blocks = (n * n / 2 + kRowThreads - 1) / kRowThreads;
  const auto grid = static_cast<unsigned>(std::clamp<std::int64_t>(blocks, 1, kMostBlocks));
  return launch(reverse, {dim3(grid), dim3(kRowThreads)}, stream, h, n * n);
}

cudaError_t reversed_factor(const ReversedFactor& args, cudaStream_t stream) {
  if (args.n == 0) return cudaSuccess;
  return launch(turn_factor, {row_grid(args.n, args.n), dim3(kRowThreads)}, stream, args);
}

}  // namespace nibble::cuda
