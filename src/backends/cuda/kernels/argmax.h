// The column of the largest number of every row (ArgmaxArgs of ops/args.h).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

// Parts into which a row is cut, each of which a block looks through.
inline constexpr int kArgmaxParts = 32;

// Pointers are device memory; up to 65,535 rows.
struct ArgmaxRows {
  const float* x = nullptr;
  std::int32_t* chosen = nullptr;
  std::uint64_t* best = nullptr;  // [rows, kArgmaxParts], for the kernel's use
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};
cudaError_t argmax_rows(const ArgmaxRows& args, cudaStream_t stream);

}  // namespace nibble::cuda
