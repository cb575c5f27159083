// Two launches: blocks look through parts of rows, then a warp a row through what they found.
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/kernels/argmax.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::uint64_t kBroken = ~std::uint64_t{0};
static_assert(kArgmaxParts <= 32);

// Rises with the number, and among equals with a lower column; 0 for -infinity, kBroken for what
// may not be there.
__device__ std::uint64_t key_of(float x, std::int64_t col) {
  if (!(x < INFINITY)) return kBroken;
  if (x == -INFINITY) return 0;
  const auto bits = static_cast<std::int32_t>(__float_as_uint(x + 0.0f));  // no -0
  const std::uint32_t rising =
      static_cast<std::uint32_t>(bits) ^ (static_cast<std::uint32_t>(bits >> 31) | 0x80000000u);
  return std::uint64_t{rising} << 32 | (0xffffffffu - static_cast<std::uint32_t>(col));
}

__device__ std::uint64_t warp_largest(std::uint64_t key) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    key = max(key, static_cast<std::uint64_t>(__shfl_xor_sync(0xffffffffu, key, lanes)));
  }
  return key;
}

__global__ void __launch_bounds__(kThreads) find_in_parts(ArgmaxRows args) {
  __shared__ std::uint64_t keys[kThreads / 32];
  wait_for_kernel_ahead();
  let_next_kernel_start();
  const std::int64_t row = blockIdx.y;
  const float* const x = args.x + row * args.cols;
  std::uint64_t best = 0;
  for (std::int64_t c = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; c < args.cols;
       c += std::int64_t{kArgmaxParts} * kThreads) {
    best = max(best, key_of(x[c], c));
  }
  best = warp_largest(best);
  if (threadIdx.x % 32 == 0) keys[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  best = warp_largest(threadIdx.x < kThreads / 32 ? keys[threadIdx.x] : 0);
  if (threadIdx.x == 0) args.best[row * kArgmaxParts + blockIdx.x] = best;
}

__global__ void __launch_bounds__(32) choose(ArgmaxRows args) {
  wait_for_kernel_ahead();
  let_next_kernel_start();
  const std::int64_t row = blockIdx.x;
  const std::uint64_t best =
      warp_largest(threadIdx.x < kArgmaxParts ? args.best[row * kArgmaxParts + threadIdx.x] : 0);
  if (threadIdx.x != 0) return;
  const bool found = best != 0 && best != kBroken;
  args.chosen[row] =
      found ? static_cast<std::int32_t>(0xffffffffu - static_cast<std::uint32_t>(best)) : -1;
}

}  // namespace

cudaError_t argmax_rows(const ArgmaxRows& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  const auto rows = static_cast<unsigned>(args.rows);
  const cudaError_t error =
      launch(find_in_parts, {dim3(kArgmaxParts, rows), dim3(kThreads), 0, true}, stream, args);
  if (error != cudaSuccess) return error;
  return launch(choose, {dim3(rows), dim3(32), 0, true}, stream, args);
}

}  // namespace nibble::cuda
