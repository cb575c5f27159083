// A block takes a row: its largest magnitude, then every value over it. Rows of up to
// kThreads * kKept * 4 stay in registers between the two; the rest of longer ones is read again.
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cfloat>

#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/launch.cuh"
#include "backends/cuda/kernels/quantize_fp8.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kKept = 6;         // vectors of 4 of a thread
constexpr float kLargest = 448;  // of E4M3

__device__ __forceinline__ float largest(float4 v) {
  return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

__device__ __forceinline__ std::uint32_t round_four(float4 v, float factor) {
  const __nv_fp8x2_storage_t low =
      __nv_cvt_float2_to_fp8x2(make_float2(v.x * factor, v.y * factor), __NV_SATFINITE, __NV_E4M3);
  const __nv_fp8x2_storage_t high =
      __nv_cvt_float2_to_fp8x2(make_float2(v.z * factor, v.w * factor), __NV_SATFINITE, __NV_E4M3);
  return static_cast<std::uint32_t>(low) | static_cast<std::uint32_t>(high) << 16;
}

__device__ __forceinline__ float largest_of_block(float value) {
  __shared__ float of_warps[kThreads / 32];
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0u, value, step));
  }
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = value;
  __syncthreads();
  float all = 0;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) all = fmaxf(all, of_warps[i]);
  return all;
}

__global__ void __launch_bounds__(kThreads)
    quantize_rows(const float* x, std::uint32_t* y, float* scales, int vectors,
                  std::int64_t x_stride) {
  wait_for_kernel_ahead();
  let_next_kernel_start();
  const std::int64_t row = blockIdx.x;
  const float4* from = reinterpret_cast<const float4*>(x + row * x_stride);
  const int thread = static_cast<int>(threadIdx.x);
  float4 kept[kKept];
  float mine = 0;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int at = thread + i * kThreads;
    kept[i] = at < vectors ? from[at] : make_float4(0, 0, 0, 0);
    mine = fmaxf(mine, largest(kept[i]));
  }
  for (int at = thread + kKept * kThreads; at < vectors; at += kThreads) {
    mine = fmaxf(mine, largest(from[at]));
  }
  const float all = largest_of_block(mine);
  // Finite for the tiniest rows, too: infinity times zero would be NaN.
  const float factor = all > 0 ? fminf(kLargest / all, FLT_MAX) : 0;
  if (thread == 0) scales[row] = all / kLargest;
  std::uint32_t* to = y + row * vectors;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int at = thread + i * kThreads;
    if (at < vectors) to[at] = round_four(kept[i], factor);
  }
  for (int at = thread + kKept * kThreads; at < vectors; at += kThreads) {
    to[at] = round_four(from[at], factor);
  }
}

}  // namespace

cudaError_t quantize_fp8(const QuantizeFp8& args, cudaStream_t stream) {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  if (args.rows < 0 || args.rows >= kMost || args.cols <= 0 || args.cols >= kMost ||
      args.cols % 16 != 0 || args.x_stride < args.cols || args.x_stride % 4 != 0) {
    return cudaErrorInvalidValue;
  }
  if (args.rows == 0) return cudaSuccess;
  const LaunchShape shape{dim3(static_cast<unsigned>(args.rows)), dim3(kThreads), 0,
                          args.dependent_launch};
  return launch(quantize_rows, shape, stream, args.x, static_cast<std::uint32_t*>(args.y),
                args.scales, static_cast<int>(args.cols / 4), args.x_stride);
}

}  // namespace nibble::cuda
