// What stands before and behind the library's factorization in InverseFactorArgs (ops/args.h). All
// pointers are device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

// Turns h [n, n] by half a turn: rows and columns in reverse.
cudaError_t reverse_square(double* h, std::int64_t n, cudaStream_t stream);

struct ReversedFactor {
  const double* lower = nullptr;  // [n, n]; what lies above the diagonal is not read
  float* upper = nullptr;         // [n, n]: `lower` turned by half a turn, zeros below the diagonal
  std::int32_t* bad = nullptr;  // set to 1 when an entry of the diagonal is not positive and finite
  std::int64_t n = 0;
};
cudaError_t reversed_factor(const ReversedFactor& args, cudaStream_t stream);

}  // namespace nibble::cuda
