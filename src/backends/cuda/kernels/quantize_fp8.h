// Activations to FP8 (E4M3) with one scale a row: x ~ y * scale.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

struct QuantizeFp8 {
  const float* x = nullptr;       // [rows, cols], x_stride floats from row to row; on 16 bytes
  void* y = nullptr;              // E4M3 [rows, cols], contiguous, on 16 bytes
  float* scales = nullptr;        // [rows]: the row's largest magnitude / 448; 0 for a row of zeros
  std::int64_t rows = 0;          // 0 launches nothing
  std::int64_t cols = 0;          // a multiple of 16
  std::int64_t x_stride = 0;      // a multiple of 4
  bool dependent_launch = false;  // may start before the kernel ahead of it in the stream has ended
};

// To nearest even. A row with an infinity becomes NaN where it was infinite and zero elsewhere; NaN
// stays NaN and does not touch the rest of its row. cudaErrorInvalidValue for sizes not as above.
cudaError_t quantize_fp8(const QuantizeFp8& args, cudaStream_t stream);

}  // namespace nibble::cuda
