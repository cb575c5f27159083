// y[m, rows] (+)= x[m, cols] * w[rows, cols]^T (+ bias) in float32, for weights stored as plain
// floats.
#pragma once

#include <cuda_runtime_api.h>

#include "backends/cuda/kernels/weight_planes.h"

namespace nibble::cuda {

struct DenseLinear {
  const void* w = nullptr;  // [rows, cols] of `type`, contiguous
  const float* x = nullptr;
  const float* bias = nullptr;  // [rows] or null
  float* y = nullptr;
  std::int64_t x_stride = 0;
  std::int64_t y_stride = 0;
  std::int64_t m = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  FloatType type = FloatType::kF32;
  std::int32_t accumulate = 0;
};

// Few rows of x: a warp streams rows of the weight, so it is bound by memory. Null when it takes
// the call, else why not.
inline constexpr std::int64_t kMostStreamedRows = 4;
const char* stream_linear_unsupported(const DenseLinear& args);
cudaError_t stream_linear(const DenseLinear& args, cudaStream_t stream);

// Anything, without tensor cores: what nothing else takes.
cudaError_t tile_linear(const DenseLinear& args, cudaStream_t stream);

}  // namespace nibble::cuda
