// SubtractProductArgs of ops/args.h. All pointers are device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

// c[m, n] -= a[m, k] b[k, n] in float32, without tensor cores: sums over k, in its order, are
// subtracted once.
struct SubtractProduct {
  const float* a = nullptr;
  const float* b = nullptr;
  float* c = nullptr;
  std::int64_t a_stride = 0;
  std::int64_t b_stride = 0;
  std::int64_t c_stride = 0;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
};
cudaError_t subtract_product(const SubtractProduct& args, cudaStream_t stream);

}  // namespace nibble::cuda
