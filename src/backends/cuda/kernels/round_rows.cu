#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/product_rows.cuh"
#include "backends/cuda/kernels/alignment.h"
#include "backends/cuda/kernels/round_rows.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 8;  // floats a step of a thread: two loads of 16 bytes, one store of 16

template <RowForm kForm>
__global__ void __launch_bounds__(kThreads) round_vectors(const float* x, uint4* y, unsigned rows,
                                                          unsigned vectors, std::int64_t x_stride) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const unsigned vector = blockIdx.x * kThreads + threadIdx.x;
  if (vector >= vectors) return;
  for (unsigned row = blockIdx.y; row < rows; row += gridDim.y) {
    const float4* from =
        reinterpret_cast<const float4*>(x + row * x_stride + std::int64_t{kVector} * vector);
    const float4 a = from[0];
    const float4 b = from[1];
    y[std::int64_t{row} * vectors + vector] =
        make_uint4(rounded_pair<kForm>(a.x, a.y), rounded_pair<kForm>(a.z, a.w),
                   rounded_pair<kForm>(b.x, b.y), rounded_pair<kForm>(b.z, b.w));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    round_scalars(const float* x, T* y, unsigned rows, unsigned cols, std::int64_t x_stride) {
  let_next_kernel_start();
  wait_for_kernel_ahead();
  const unsigned col = blockIdx.x * kThreads + threadIdx.x;
  if (col >= cols) return;
  for (unsigned row = blockIdx.y; row < rows; row += gridDim.y) {
    y[std::int64_t{row} * cols + col] = static_cast<T>(x[row * x_stride + col]);
  }
}

template <class T, RowForm kForm>
cudaError_t run(const RoundRows& args, cudaStream_t stream) {
  const bool vectors = args.cols % kVector == 0 && args.x_stride % 4 == 0 && on_16_bytes(args.x) &&
                       on_16_bytes(args.y);
  const auto rows = static_cast<unsigned>(args.rows);
  const auto width = static_cast<unsigned>(vectors ? args.cols / kVector : args.cols);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3((width + kThreads - 1) / kThreads, rows < 65535 ? rows : 65535);
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  cudaLaunchAttribute attribute = dependent_launch_attribute(args.dependent_launch);
  config.attrs = &attribute;
  config.numAttrs = args.dependent_launch ? 1 : 0;
  if (vectors) {
    return cudaLaunchKernelEx(&config, round_vectors<kForm>, args.x, static_cast<uint4*>(args.y),
                              rows, width, args.x_stride);
  }
  return cudaLaunchKernelEx(&config, round_scalars<T>, args.x, static_cast<T*>(args.y), rows, width,
                            args.x_stride);
}

}  // namespace

cudaError_t round_rows(const RoundRows& args, cudaStream_t stream) {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  if (args.rows < 0 || args.cols < 0 || args.rows >= kMost || args.cols >= kMost ||
      args.x_stride < args.cols) {
    return cudaErrorInvalidValue;
  }
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  return args.half ? run<__half, RowForm::kF16>(args, stream)
                   : run<__nv_bfloat16, RowForm::kBf16>(args, stream);
}

}  // namespace nibble::cuda
