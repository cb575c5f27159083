// Ops that look at the columns of a matrix (TransposeArgs, ColumnSumsArgs and ScaleArgs of
// ops/args.h). All
// pointers are device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

struct TransposeRows {
  const float* x = nullptr;  // [rows, cols]
  float* y = nullptr;        // [cols, rows]
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};
cudaError_t transpose_rows(const TransposeRows& args, cudaStream_t stream);

// Sums do not depend on anything but x: 16 of every column, of the rows with one remainder each,
// are added up in order.
struct ColumnSums {
  const float* x = nullptr;  // [rows, cols]
  float* max_abs = nullptr;
  double* sum_squares = nullptr;
  double* sum_abs = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};
cudaError_t column_sums(const ColumnSums& args, cudaStream_t stream);

// Factors and divisors may be null; y may be x.
struct ScaleMatrix {
  const float* x = nullptr;         // [rows, cols]
  const float* factors = nullptr;   // [cols]
  const float* divisors = nullptr;  // [rows]
  float* y = nullptr;               // [rows, cols]
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};
cudaError_t scale_matrix(const ScaleMatrix& args, cudaStream_t stream);

}  // namespace nibble::cuda
