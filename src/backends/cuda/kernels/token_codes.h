// Rows of activations as bytes for the tensor cores: symmetric, one scale a row
// (ActivationScope::kToken).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backends/cuda/kernels/byte_type.h"

namespace nibble::cuda {

// x = scales * codes, as ActivationFormat rounds it; the scale of a row that holds a NaN or an
// infinity is NaN.
struct TokenCodes {
  const float* x = nullptr;  // [rows, cols], rows x_stride apart
  void* codes = nullptr;     // [rows, cols] bytes, contiguous, on 4 bytes; cols % 4 == 0
  float* scales = nullptr;   // [rows]
  std::int64_t x_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  ByteType type = ByteType::kInt8;
  float most = 127;  // the largest magnitude of a code's value
};
cudaError_t token_codes(const TokenCodes& args, cudaStream_t stream);

// y[r, c] (+)= x_scales[r] * (w_scales[c] * product[r, c]) + bias[c]
struct ScaleProducts {
  const void* product = nullptr;  // [rows, cols] of int32 for kInt8, of float32 for kFp8
  const float* x_scales = nullptr;
  const float* w_scales = nullptr;
  const float* bias = nullptr;  // [cols] or null
  float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  ByteType type = ByteType::kInt8;
  std::int32_t accumulate = 0;
};
cudaError_t scale_products(const ScaleProducts& args, cudaStream_t stream);

}  // namespace nibble::cuda
