#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/device/mma_m16n8k16.cuh"
#include "backends/cuda/device/warp_reduce.cuh"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/kernels/dense_linear.h"

namespace nibble::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kRows = 2;    // of the weight, a warp: they share what is read of x
constexpr int kVector = 8;  // weights a lane takes at a time

// 8 weights as float32: of a 16-bit type, or as they are.
template <class Pairs>
struct Halves8 {
  static constexpr int kBytes = 2;
  static __device__ void load(const void* p, float (&out)[kVector]) {
    const uint4 raw = __ldcs(static_cast<const uint4*>(p));
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = Pairs::unpack(words[i]);
      out[2 * i] = pair.x;
      out[2 * i + 1] = pair.y;
    }
  }
};

struct Float8 {
  static constexpr int kBytes = 4;
  static __device__ void load(const void* p, float (&out)[kVector]) {
    const float4 a = __ldcs(static_cast<const float4*>(p));
    const float4 b = __ldcs(static_cast<const float4*>(p) + 1);
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  }
};

template <class Weights, int kM>
__global__ void __launch_bounds__(kThreads) stream_rows(DenseLinear args) {
  const std::int64_t first = (blockIdx.x * std::int64_t{kWarps} + threadIdx.x / 32) * kRows;
  const int lane = threadIdx.x % 32;
  const auto* const w = static_cast<const char*>(args.w);
  // The last warp reads its last row twice rather than one that is not there.
  const std::int64_t second = min(first + 1, args.rows - 1);
  const std::int64_t row[kRows] = {min(first, args.rows - 1), second};
  let_next_kernel_start();
  wait_for_kernel_ahead();
  float sums[kRows][kM] = {};
#pragma unroll 4
  for (std::int64_t k = lane * kVector; k < args.cols; k += 32 * kVector) {
    float weights[kRows][kVector];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      Weights::load(w + (row[r] * args.cols + k) * Weights::kBytes, weights[r]);
    }
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      const float4* const x = reinterpret_cast<const float4*>(args.x + m * args.x_stride + k);
      const float4 a = x[0];
      const float4 b = x[1];
      const float values[kVector] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) sums[r][m] += weights[r][i] * values[i];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      float sum = warp_sum(sums[r][m]);
      if (lane != 0 || first + r >= args.rows) continue;
      float* const y = args.y + m * args.y_stride + first + r;
      if (args.bias != nullptr) sum += args.bias[first + r];
      *y = args.accumulate ? *y + sum : sum;
    }
  }
}

template <class Weights>
cudaError_t run(const DenseLinear& args, cudaStream_t stream) {
  constexpr std::int64_t kBlockRows = kWarps * kRows;
  const dim3 grid(static_cast<unsigned>((args.rows + kBlockRows - 1) / kBlockRows));
  switch (args.m) {
    case 1:
      return launch(stream_rows<Weights, 1>, {grid, dim3(kThreads), 0, true}, stream, args);
    case 2:
      return launch(stream_rows<Weights, 2>, {grid, dim3(kThreads), 0, true}, stream, args);
    case 3:
      return launch(stream_rows<Weights, 3>, {grid, dim3(kThreads), 0, true}, stream, args);
    default:
      return launch(stream_rows<Weights, 4>, {grid, dim3(kThreads), 0, true}, stream, args);
  }
}

}  // namespace

const char* stream_linear_unsupported(const DenseLinear& args) {
  if (args.m > kMostStreamedRows) return "for up to 4 rows";
  if (args.cols % kVector != 0 || args.x_stride % 4 != 0 || !on_16_bytes(args.w) ||
      !on_16_bytes(args.x)) {
    return "rows are not on 16 bytes";
  }
  return nullptr;
}

cudaError_t stream_linear(const DenseLinear& args, cudaStream_t stream) {
  if (args.m == 0 || args.rows == 0) return cudaSuccess;
  switch (args.type) {
    case FloatType::kF16:
      return run<Halves8<F16Pairs>>(args, stream);
    case FloatType::kBF16:
      return run<Halves8<Bf16Pairs>>(args, stream);
    case FloatType::kF32:
      return run<Float8>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace nibble::cuda
