// A token drawn from every row of logits (SampleArgs of ops/args.h).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

// TokenChoice of ops/args.h, ready for the kernel.
struct DrawRule {
  double u = 0;
  double keep_below = 0;   // 1 - top_p: the share that may go; 0 = off
  double log_min_p = 0;    // read when min_p is on
  float temperature = 0;   // 0: the largest
  std::int32_t top_k = 0;  // 0 = off
  std::int32_t has_min_p = 0;
  std::int32_t padding = 0;
};

inline constexpr std::int64_t kSampleMaxCols = std::int64_t{1} << 22;

// Pointers are device memory; up to kSampleMaxCols columns. Probabilities are summed in units of
// 2^-40 of the largest, so that sums do not depend on an order.
struct SampleRows {
  const float* x = nullptr;
  const DrawRule* rules = nullptr;  // [rows]
  std::int32_t* chosen = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};
cudaError_t sample_rows(const SampleRows& args, cudaStream_t stream);

}  // namespace nibble::cuda
