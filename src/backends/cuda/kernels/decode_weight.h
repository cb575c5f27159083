// Any format to plain floats: what a library product needs, and the embedding table.
#pragma once

#include <cuda_runtime_api.h>

#include "backends/cuda/kernels/weight_planes.h"

namespace nibble::cuda {

// out [rows, cols] of `type`, contiguous: rows [first_row, first_row + rows) of the weight.
struct DecodeWeight {
  WeightPlanes weight;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  void* out = nullptr;
  std::int64_t type = 0;  // a FloatType
};
cudaError_t decode_weight(const DecodeWeight& args, cudaStream_t stream);

// out[i] (+)= row ids[i] * scale; float32 [count, cols]. An id of -1 - k stands for chosen[k], and
// what is below 0 there for row 0.
struct EmbedRows {
  WeightPlanes table;
  const std::int32_t* ids = nullptr;
  const std::int32_t* chosen = nullptr;
  std::int64_t count = 0;
  float* out = nullptr;
  float scale = 1;
  std::int32_t accumulate = 0;
};
cudaError_t embed_rows(const EmbedRows& args, cudaStream_t stream);

}  // namespace nibble::cuda
