// The Hadamard transform of rows in place: HadamardArgs of ops/args.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

struct HadamardRows {
  float* x = nullptr;  // [rows, cols]
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

// Null when the kernel takes the call, else why not.
const char* hadamard_unsupported(std::int64_t cols);

cudaError_t hadamard_rows(const HadamardRows& args, cudaStream_t stream);

}  // namespace nibble::cuda
