// Bound by memory: x is read once, in lines of 32 columns or more.
#include <algorithm>

#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/kernels/columns.h"

namespace nibble::cuda {
namespace {

constexpr int kTile = 32;
constexpr int kTileRows = 8;  // of threads
constexpr std::int64_t kMostY = 65535;

unsigned tiles_of(std::int64_t count) { return static_cast<unsigned>((count + kTile - 1) / kTile); }

__global__ void __launch_bounds__(kTile* kTileRows) transpose(TransposeRows args) {
  __shared__ float tile[kTile][kTile + 1];  // a column apart, so that both ways use all banks
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t col0 = std::int64_t{blockIdx.x} * kTile;
  for (std::int64_t row0 = std::int64_t{blockIdx.y} * kTile; row0 < args.rows;
       row0 += std::int64_t{gridDim.y} * kTile) {
    const std::int64_t col = col0 + threadIdx.x;
#pragma unroll
    for (int i = 0; i < kTile; i += kTileRows) {
      const std::int64_t row = row0 + threadIdx.y + i;
      if (row < args.rows && col < args.cols) {
        tile[threadIdx.y + i][threadIdx.x] = args.x[row * args.cols + col];
      }
    }
    __syncthreads();
    const std::int64_t out_col = row0 + threadIdx.x;
#pragma unroll
    for (int i = 0; i < kTile; i += kTileRows) {
      const std::int64_t out_row = col0 + threadIdx.y + i;
      if (out_row < args.cols && out_col < args.rows) {
        args.y[out_row * args.rows + out_col] = tile[threadIdx.x][threadIdx.y + i];
      }
    }
    __syncthreads();
  }
}

constexpr int kSumRows = 16;  // of threads, each with sums of its own

__global__ void __launch_bounds__(kTile* kSumRows) sums(ColumnSums args) {
  __shared__ float largest[kSumRows][kTile];
  __shared__ double squares[kSumRows][kTile];
  __shared__ double magnitudes[kSumRows][kTile];
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t col = std::int64_t{blockIdx.x} * kTile + threadIdx.x;
  float most = 0;
  double square = 0;
  double magnitude = 0;
  if (col < args.cols) {
    for (std::int64_t row = threadIdx.y; row < args.rows; row += kSumRows) {
      const float x = args.x[row * args.cols + col];
      most = fmaxf(most, fabsf(x));
      square += static_cast<double>(x) * static_cast<double>(x);
      magnitude += static_cast<double>(fabsf(x));
    }
  }
  largest[threadIdx.y][threadIdx.x] = most;
  squares[threadIdx.y][threadIdx.x] = square;
  magnitudes[threadIdx.y][threadIdx.x] = magnitude;
  __syncthreads();
  if (threadIdx.y != 0 || col >= args.cols) return;
  for (int i = 1; i < kSumRows; ++i) {
    most = fmaxf(most, largest[i][threadIdx.x]);
    square += squares[i][threadIdx.x];
    magnitude += magnitudes[i][threadIdx.x];
  }
  args.max_abs[col] = fmaxf(args.max_abs[col], most);
  args.sum_squares[col] += square;
  args.sum_abs[col] += magnitude;
}

constexpr int kScaled = 256;    // columns of a block
constexpr int kScaledRows = 8;  // of a thread, so that enough loads are under way

__global__ void __launch_bounds__(kScaled) scaled(ScaleMatrix args) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const std::int64_t col = std::int64_t{blockIdx.x} * kScaled + threadIdx.x;
  if (col >= args.cols) return;
  const float factor = args.factors == nullptr ? 1.0f : args.factors[col];
  for (std::int64_t first = std::int64_t{blockIdx.y} * kScaledRows; first < args.rows;
       first += std::int64_t{gridDim.y} * kScaledRows) {
    float x[kScaledRows];
#pragma unroll
    for (int i = 0; i < kScaledRows; ++i) {
      x[i] = first + i < args.rows ? args.x[(first + i) * args.cols + col] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kScaledRows; ++i) {
      if (first + i >= args.rows) break;
      const float product = __fmul_rn(x[i], factor);
      args.y[(first + i) * args.cols + col] =
          args.divisors == nullptr ? product : __fdiv_rn(product, args.divisors[first + i]);
    }
  }
}

}  // namespace

cudaError_t transpose_rows(const TransposeRows& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  const dim3 grid(tiles_of(args.cols),
                  static_cast<unsigned>(std::min<std::int64_t>(tiles_of(args.rows), kMostY)));
  return launch(transpose, {grid, dim3(kTile, kTileRows), 0, true}, stream, args);
}

cudaError_t column_sums(const ColumnSums& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  return launch(sums, {dim3(tiles_of(args.cols)), dim3(kTile, kSumRows), 0, true}, stream, args);
}

cudaError_t scale_matrix(const ScaleMatrix& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  const std::int64_t high = (args.rows + kScaledRows - 1) / kScaledRows;
  const dim3 grid(static_cast<unsigned>((args.cols + kScaled - 1) / kScaled),
                  static_cast<unsigned>(std::min(high, kMostY)));
  return launch(scaled, {grid, dim3(kScaled), 0, true}, stream, args);
}

}  // namespace nibble::cuda
