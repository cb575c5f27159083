// Rows rounded to a format of activations (formats/activation_format.h), one scale a row or a group
// of columns, or one given: y = scale * q, the same bits as ActivationFormat::round_row() gives.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

struct RoundActivations {
  const float* x = nullptr;  // [rows, cols], rows x_stride apart
  float* y = nullptr;        // [rows, cols], contiguous; not x
  std::int64_t x_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t group = 0;         // columns that share a scale; the last group may be shorter
  const float* bounds = nullptr;  // of a table (CodeTable), [leaves], device memory; null: integers
  const float* values = nullptr;  // of a table, by rank
  std::int32_t leaves = 0;
  float most = 0;             // the largest magnitude of q; of asymmetric integers hi + zero
  float least_of_static = 0;  // the lowest q under a static scale, symmetric integers
  float fixed_scale = 0;      // of a static scale; 0: dynamic
  float fixed_zero = 0;       // the same, of asymmetric integers
  std::int32_t symmetric = 1;
};
cudaError_t round_activations(const RoundActivations& args, cudaStream_t stream);

}  // namespace nibble::cuda
