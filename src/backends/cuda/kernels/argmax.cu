// Two launches: blocks look through parts of rows, then a warp a row through what they found.
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/rising_key.cuh"
#include "backends/cuda/kernels/argmax.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kAhead = 8;  // loads under way: all of a thread's for 131,072 columns
static_assert(kArgmaxParts <= 32);

__global__ void __launch_bounds__(kThreads) find_in_parts(ArgmaxRows args) {
  __shared__ std::uint64_t keys[kThreads / 32];
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t row = blockIdx.y;
  const float* const x = args.x + row * args.cols;
  std::uint64_t best = 0;
  constexpr std::int64_t kStep = std::int64_t{kArgmaxParts} * kThreads;
  for (std::int64_t c = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; c < args.cols;
       c += kAhead * kStep) {
    float values[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (c + i * kStep < args.cols) values[i] = x[c + i * kStep];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (c + i * kStep < args.cols) best = max(best, first_largest_key(values[i], c + i * kStep));
    }
  }
  best = warp_largest(best);
  if (threadIdx.x % 32 == 0) keys[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  best = warp_largest(threadIdx.x < kThreads / 32 ? keys[threadIdx.x] : 0);
  if (threadIdx.x == 0) args.best[row * kArgmaxParts + blockIdx.x] = best;
}

__global__ void __launch_bounds__(32) choose(ArgmaxRows args) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t row = blockIdx.x;
  const std::uint64_t best =
      warp_largest(threadIdx.x < kArgmaxParts ? args.best[row * kArgmaxParts + threadIdx.x] : 0);
  if (threadIdx.x != 0) return;
  const bool found = best != 0 && best != kBrokenKey;
  args.chosen[row] = found ? column_of_key(best) : -1;
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
