// A warp a row, which stays in registers: element 32 s + lane is a lane's number s. Partners less
// than 32 apart are in another lane, others in another register.
#include <algorithm>

#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/kernels/hadamard.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kMostSlots = 32;

// Sums and differences of the numbers whose indices differ in bit `half`.
template <int kSlots>
__device__ __forceinline__ void mix_lanes(float (&values)[kSlots], int half) {
  const bool second = (static_cast<int>(threadIdx.x) & half) != 0;
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const float other = __shfl_xor_sync(0xffffffffu, values[s], half);
    values[s] = second ? other - values[s] : other + values[s];
  }
}
template <int kSlots, int kHalf>
__device__ __forceinline__ void mix_slots(float (&values)[kSlots]) {
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    if ((s & kHalf) != 0 || s + kHalf >= kSlots) continue;
    const float low = values[s];
    values[s] = low + values[s + kHalf];
    values[s + kHalf] = low - values[s + kHalf];
  }
}

template <int kSlots>
__global__ void __launch_bounds__(kThreads) transform(HadamardRows args, int size) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float scale = rsqrtf(static_cast<float>(size));
  for (std::int64_t row = blockIdx.x * std::int64_t{kWarps} + threadIdx.x / 32; row < args.rows;
       row += gridDim.x * std::int64_t{kWarps}) {
    float* const x = args.x + row * args.cols;
    float values[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) values[s] = 32 * s + lane < args.cols ? x[32 * s + lane] : 0;
    for (int half = 1; half < min(size, 32); half *= 2) mix_lanes(values, half);
    if (size > 32) mix_slots<kSlots, 1>(values);
    if (size > 64) mix_slots<kSlots, 2>(values);
    if constexpr (kSlots > 4) {
      if (size > 128) mix_slots<kSlots, 4>(values);
      if (size > 256) mix_slots<kSlots, 8>(values);
      if (size > 512) mix_slots<kSlots, 16>(values);
    }
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      if (32 * s + lane < args.cols) x[32 * s + lane] = values[s] * scale;
    }
  }
}

}  // namespace

const char* hadamard_unsupported(std::int64_t cols) {
  return cols > 32 * kMostSlots ? "more than 1024 columns" : nullptr;
}

cudaError_t hadamard_rows(const HadamardRows& args, cudaStream_t stream) {
  if (args.cols < 1 || hadamard_unsupported(args.cols) != nullptr) return cudaErrorInvalidValue;
  if (args.rows == 0) return cudaSuccess;
  constexpr std::int64_t kMostBlocks = 4096;
  const std::int64_t blocks = std::min((args.rows + kWarps - 1) / kWarps, kMostBlocks);
  const LaunchShape shape{dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, true};
  const int size = static_cast<int>(args.cols & -args.cols);
  if (args.cols <= 128) return launch(transform<4>, shape, stream, args, size);
  if (args.cols <= 256) return launch(transform<8>, shape, stream, args, size);
  return launch(transform<kMostSlots>, shape, stream, args, size);
}

}  // namespace nibble::cuda
