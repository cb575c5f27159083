// Rows of activations as fp8 for products with packed 4-bit weights (w4_fp8 of kernels/w4_large.h).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

inline constexpr std::int64_t kFp8SumColumns = 128;

// x = scales * codes as ActivationFormat rounds it, one scale a row (kernels/token_codes.h); the
// scale of a row that holds a NaN or an infinity is NaN.
struct Fp8Rows {
  const float* x = nullptr;  // [rows, cols] on 16 bytes, rows x_stride apart (a multiple of 4)
  // [rows, cols] of e4m3, contiguous, on 16 bytes. Columns are exchanged within each 16 of them:
  // byte 4 c + j is column 2 c + {0, 8, 1, 9}[j], which the nibbles of a packed word have in one
  // row (backends/cuda/fragment_weight.h).
  void* codes = nullptr;
  float* scales = nullptr;  // [rows]
  // [cols / 128, sums_stride]: of the values of the codes of row r, column r. On 16 bytes.
  float* sums = nullptr;
  std::int64_t sums_stride = 0;  // at least rows, a multiple of 4
  std::int64_t x_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;  // a multiple of 128
  float most = 448;       // the largest magnitude of a code's value
};
cudaError_t fp8_rows(const Fp8Rows& args, cudaStream_t stream);

}  // namespace nibble::cuda
