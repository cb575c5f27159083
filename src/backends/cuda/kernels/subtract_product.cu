// A block has 128 x 128 of c, a thread 8 x 8 of it, as four squares of 4 x 4, so that lanes read
// shared memory 16 bytes beside each other. The next 16 of k are loaded while these are multiplied.
#include <algorithm>

#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/kernels/subtract_product.h"

namespace nibble::cuda {
namespace {

constexpr int kTile = 128;  // rows and columns of c a block
constexpr int kDepth = 16;  // of k at a time
constexpr int kThreads = 256;
constexpr int kSide = 16;  // threads a side
constexpr int kSquare = 4;
constexpr int kHalf = kTile / 2;
constexpr int kLoads = kTile * kDepth / kThreads;  // of each operand a thread

struct Stage {
  float a[kDepth]
         [kTile + kSquare];  // transposed; further apart, so that columns lie in other banks
  float b[kDepth][kTile];
};

struct Loads {
  float a[kLoads];
  float b[kLoads];
};

__device__ void load(const SubtractProduct& args, std::int64_t m0, std::int64_t n0, std::int64_t k0,
                     Loads& loads) {
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    const int at = threadIdx.x + i * kThreads;
    const std::int64_t m = m0 + at / kDepth;
    const std::int64_t a_k = k0 + at % kDepth;
    loads.a[i] = m < args.m && a_k < args.k ? args.a[m * args.a_stride + a_k] : 0.0f;
    const std::int64_t n = n0 + at % kTile;
    const std::int64_t b_k = k0 + at / kTile;
    loads.b[i] = n < args.n && b_k < args.k ? args.b[b_k * args.b_stride + n] : 0.0f;
  }
}

__device__ void store(const Loads& loads, Stage& stage) {
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    const int at = threadIdx.x + i * kThreads;
    stage.a[at % kDepth][at / kDepth] = loads.a[i];
    stage.b[at / kTile][at % kTile] = loads.b[i];
  }
}

// Element i of a thread's 8 in a tile of which it has two squares.
__device__ int place(int thread, int i) {
  return i / kSquare * kHalf + thread * kSquare + i % kSquare;
}

__device__ void read8(const float* row, int thread, float* values) {
  const auto* const low = reinterpret_cast<const float4*>(row + thread * kSquare);
  const auto* const high = reinterpret_cast<const float4*>(row + kHalf + thread * kSquare);
  *reinterpret_cast<float4*>(values) = *low;
  *reinterpret_cast<float4*>(values + kSquare) = *high;
}

__device__ void multiply(const Stage& stage, int ty, int tx, float (&sums)[8][8]) {
#pragma unroll
  for (int k = 0; k < kDepth; ++k) {
    alignas(16) float a[8];
    alignas(16) float b[8];
    read8(stage.a[k], ty, a);
    read8(stage.b[k], tx, b);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
    }
  }
}

__global__ void __launch_bounds__(kThreads, 2) subtract(SubtractProduct args) {
  __shared__ __align__(16) Stage stage;
  wait_for_kernel_ahead();
  let_next_kernel_start();
  const int tx = threadIdx.x % kSide;
  const int ty = threadIdx.x / kSide;
  const std::int64_t n0 = blockIdx.x * std::int64_t{kTile};
  for (std::int64_t m0 = blockIdx.y * std::int64_t{kTile}; m0 < args.m;
       m0 += gridDim.y * std::int64_t{kTile}) {
    float sums[8][8] = {};
    Loads loads;
    load(args, m0, n0, 0, loads);
    for (std::int64_t k0 = 0; k0 < args.k; k0 += kDepth) {
      __syncthreads();  // all have multiplied what was there
      store(loads, stage);
      __syncthreads();
      load(args, m0, n0, k0 + kDepth, loads);
      multiply(stage, ty, tx, sums);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::int64_t m = m0 + place(ty, i);
      if (m >= args.m) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const std::int64_t n = n0 + place(tx, j);
        if (n < args.n) args.c[m * args.c_stride + n] -= sums[i][j];
      }
    }
  }
}

}  // namespace

cudaError_t subtract_product(const SubtractProduct& args, cudaStream_t stream) {
  if (args.m == 0 || args.n == 0 || args.k == 0) return cudaSuccess;
  constexpr std::int64_t kMostY = 65535;
  const dim3 grid(static_cast<unsigned>((args.n + kTile - 1) / kTile),
                  static_cast<unsigned>(std::min((args.m + kTile - 1) / kTile, kMostY)));
  return launch(subtract, {grid, dim3(kThreads), 0, true}, stream, args);
}

}  // namespace nibble::cuda
