// Reductions over a block, or over the lanes that share a piece of work.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/warp_reduce.cuh"

namespace nibble::cuda {

// One value a thread over the block, to all threads.
template <int kThreads, class Combine>
__device__ float block_reduce(float value, float neutral, const Combine& combine) {
  __shared__ float partial[kThreads / 32];
  value = combine(value);
  __syncthreads();  // an earlier result has been read
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = threadIdx.x % 32 < kThreads / 32 ? partial[threadIdx.x % 32] : neutral;
  return combine(value);
}

// Pieces of work by a warp each, or by a block of kThreads each.
template <int kLanes, int kThreads>
struct Team {
  static_assert(kLanes == 32 || kLanes == kThreads);
  static __device__ std::int64_t index() {
    return blockIdx.x * std::int64_t{kThreads / kLanes} + threadIdx.x / kLanes;
  }
  static __device__ int lane() { return static_cast<int>(threadIdx.x) % kLanes; }
  static __device__ float sum(float value) {
    if constexpr (kLanes == 32) return warp_sum(value);
    return block_reduce<kThreads>(value, 0, [](float v) { return warp_sum(v); });
  }
  static __device__ float largest(float value) {
    if constexpr (kLanes == 32) return warp_max(value);
    return block_reduce<kThreads>(value, -INFINITY, [](float v) { return warp_max(v); });
  }
};

// A launch of so many pieces.
template <int kLanes>
LaunchShape team_shape(std::int64_t pieces, int threads) {
  const std::int64_t teams = threads / kLanes;
  return {dim3(static_cast<unsigned>((pieces + teams - 1) / teams)),
          dim3(static_cast<unsigned>(threads)), 0, true};
}

}  // namespace nibble::cuda
