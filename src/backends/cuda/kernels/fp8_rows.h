// Rows of activations as fp8 for products with packed 4-bit weights (w4_fp8 of kernels/w4_large.h).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

// Sums of codes go into a second product, with scales times zero points, as pairs of bfloat16 whose
// sum they are but for 2^-17 of them. A box of them is a row of 128 bytes of operand B:
// [2][high, low][16 groups].
inline constexpr std::int64_t kFp8SumColumns = 128;  // of a sum
inline constexpr int kFp8SumGroups = 32;             // sums in a box
inline constexpr int kFp8SumBox = 64;                // bfloat16 in a box

// bfloat16 in a row of sums of `cols` codes: whole boxes.
constexpr std::int64_t fp8_sum_columns(std::int64_t cols) {
  const std::int64_t sums = cols / kFp8SumColumns;
  return (sums + kFp8SumGroups - 1) / kFp8SumGroups * kFp8SumBox;
}

// x = scales * codes as ActivationFormat rounds it, one scale a row (kernels/token_codes.h); the
// scale of a row that holds a NaN or an infinity is NaN.
struct Fp8Rows {
  const float* x = nullptr;  // [rows, cols] on 16 bytes, rows x_stride apart (a multiple of 4)
  // [rows, cols] of e4m3, contiguous, on 16 bytes. Columns are exchanged within each 16 of them:
  // byte 4 c + j is column 2 c + {0, 8, 1, 9}[j], which the nibbles of a packed word have in one
  // row (backends/cuda/fragment_weight.h).
  void* codes = nullptr;
  float* scales = nullptr;  // [rows]
  // bfloat16 [rows, fp8_sum_columns(cols)] on 16 bytes: of the values of 128 codes each, in boxes;
  // zeros behind the last.
  void* sums = nullptr;
  std::int64_t x_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;  // a multiple of 128
  float most = 448;       // the largest magnitude of a code's value
};
cudaError_t fp8_rows(const Fp8Rows& args, cudaStream_t stream);

}  // namespace nibble::cuda
