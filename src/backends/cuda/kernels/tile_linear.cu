#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/weight_element.cuh"
#include "backends/cuda/kernels/dense_linear.h"

namespace nibble::cuda {
namespace {

constexpr int kTile = 64;   // rows of x and of the weight a block
constexpr int kDepth = 16;  // columns at a time
constexpr int kSide = 16;   // threads a side; each has a part of 4 x 4
constexpr int kPart = kTile / kSide;

__global__ void __launch_bounds__(kSide* kSide) tile(DenseLinear args) {
  __shared__ float x[kDepth][kTile + 1];
  __shared__ float w[kDepth][kTile + 1];
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const int tx = threadIdx.x % kSide;
  const int ty = threadIdx.x / kSide;
  const std::int64_t n0 = blockIdx.x * std::int64_t{kTile};
  for (std::int64_t m0 = blockIdx.y * std::int64_t{kTile}; m0 < args.m;
       m0 += gridDim.y * std::int64_t{kTile}) {
    float sums[kPart][kPart] = {};
    for (std::int64_t k0 = 0; k0 < args.cols; k0 += kDepth) {
      for (int i = threadIdx.x; i < kTile * kDepth; i += kSide * kSide) {
        const int k = i % kDepth;
        const int r = i / kDepth;
        const bool inside = k0 + k < args.cols;
        x[k][r] = inside && m0 + r < args.m ? args.x[(m0 + r) * args.x_stride + k0 + k] : 0.0f;
        w[k][r] = inside && n0 + r < args.rows
                      ? load_float(args.type, args.w, (n0 + r) * args.cols + k0 + k)
                      : 0.0f;
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kDepth; ++k) {
#pragma unroll
        for (int i = 0; i < kPart; ++i) {
#pragma unroll
          for (int j = 0; j < kPart; ++j) {
            sums[i][j] += x[k][ty + kSide * i] * w[k][tx + kSide * j];
          }
        }
      }
      __syncthreads();
    }
    for (int i = 0; i < kPart; ++i) {
      for (int j = 0; j < kPart; ++j) {
        const std::int64_t m = m0 + ty + kSide * i;
        const std::int64_t n = n0 + tx + kSide * j;
        if (m >= args.m || n >= args.rows) continue;
        float* const y = args.y + m * args.y_stride + n;
        const float sum = sums[i][j] + (args.bias == nullptr ? 0.0f : args.bias[n]);
        *y = args.accumulate ? *y + sum : sum;
      }
    }
  }
}

}  // namespace

cudaError_t tile_linear(const DenseLinear& args, cudaStream_t stream) {
  if (args.m == 0 || args.rows == 0) return cudaSuccess;
  constexpr std::int64_t kMostY = 65535;
  const std::int64_t y = (args.m + kTile - 1) / kTile;
  const dim3 grid(static_cast<unsigned>((args.rows + kTile - 1) / kTile),
                  static_cast<unsigned>(y < kMostY ? y : kMostY));
  return launch(tile, {grid, dim3(kSide * kSide), 0, true}, stream, args);
}

}  // namespace nibble::cuda
