// y[m, rows] (+)= x[m, cols] * w[rows, cols]^T (+ bias) in float32, for weights on planes of codes:
// integers that are not repacked, and tables of values. Bound by memory while x has few rows.
#pragma once

#include <cuda_runtime_api.h>

#include "backends/cuda/kernels/weight_planes.h"

namespace nibble::cuda {

struct CodesLinear {
  WeightPlanes w;
  const float* x = nullptr;
  const float* bias = nullptr;  // [rows] or null
  float* y = nullptr;
  std::int64_t x_stride = 0;
  std::int64_t y_stride = 0;
  std::int64_t m = 0;
  std::int64_t accumulate = 0;
};

inline constexpr std::int64_t kMostCodesRows = 4;
// Null when it takes the call, else why not.
const char* stream_codes_unsupported(const CodesLinear& args);
cudaError_t stream_codes(const CodesLinear& args, cudaStream_t stream);

}  // namespace nibble::cuda
