// The ops that are bound by memory: norms, rotary embeddings, activations, sums, rows by index. All
// float32, but for results that only products read. Structs say what ops/args.h says, with every
// pointer on the device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backends/cuda/kernels/product_rows.h"

namespace nibble::cuda {

struct NormRows {
  const float* x = nullptr;
  const float* weight = nullptr;  // [cols] or null
  const float* bias = nullptr;    // [cols] or null
  float* y = nullptr;
  std::int64_t x_stride = 0;
  std::int64_t y_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  float weight_offset = 0;
  float eps = 0;
  ProductRows out;           // where the result goes instead of y, unless its form is kFloat32
  std::int64_t centred = 0;  // layer norm
};
// Whether a block keeps a row in registers: what forms other than kFloat32 need.
bool norm_holds_rows(const NormRows& args);
cudaError_t norm_rows(const NormRows& args, cudaStream_t stream);

struct RopeRows {
  float* data = nullptr;
  const float* inv_freq = nullptr;
  const std::int32_t* positions = nullptr;
  std::int64_t row_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t rows = 0;
  std::int64_t heads = 0;
  std::int64_t rotary_dim = 0;
  float scale = 1;
  std::int32_t interleaved = 0;
};
cudaError_t rope_rows(const RopeRows& args, cudaStream_t stream);

struct ActivateRows {
  const float* x = nullptr;
  const float* multiplier = nullptr;  // or null
  float* y = nullptr;
  std::int64_t x_stride = 0;
  std::int64_t multiplier_stride = 0;
  std::int64_t y_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int32_t kind = 0;  // an Activation
  float softcap = 0;
  float limit = 0;  // of x and, on both sides, of the multiplier; may be infinite
  float multiplier_offset = 0;
  ProductRows out;  // where the result goes instead of y, unless its form is kFloat32
};
// Whether it can be written in this form: rows on 16 bytes, of whole vectors of four, and for forms
// with scales as long as registers of a block allow.
bool activates_into(RowForm form, const ActivateRows& args);
cudaError_t activate_rows(const ActivateRows& args, cudaStream_t stream);

// y[i] += scale * x[i]
struct AddValues {
  const float* x = nullptr;
  float* y = nullptr;
  std::int64_t count = 0;
  double scale = 1;  // a float, as wide as its neighbours
};
cudaError_t add_values(const AddValues& args, cudaStream_t stream);

// y[r] = bias, or y[r] += bias; rows of `cols`
struct BiasRows {
  const float* bias = nullptr;
  float* y = nullptr;
  std::int64_t y_stride = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t accumulate = 0;
};
cudaError_t bias_rows(const BiasRows& args, cudaStream_t stream);

struct GatherRows {
  const float* x = nullptr;
  const std::int32_t* index = nullptr;
  float* out = nullptr;
  std::int64_t count = 0;
  std::int64_t cols = 0;
};
cudaError_t gather_rows(const GatherRows& args, cudaStream_t stream);

struct ScatterAddRows {
  const float* x = nullptr;
  const std::int32_t* index = nullptr;
  const float* weights = nullptr;
  float* y = nullptr;
  std::int64_t count = 0;
  std::int64_t cols = 0;
};
cudaError_t scatter_add_rows(const ScatterAddRows& args, cudaStream_t stream);

}  // namespace nibble::cuda
