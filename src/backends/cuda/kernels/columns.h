// Ops that look at the columns of a matrix (TransposeArgs and ColumnSumsArgs of ops/args.h). All
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

}  // namespace nibble::cuda
