// Float32 rows to bfloat16 or half precision, to nearest even: activations on their way into the
// tensor cores.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

struct RoundRows {
  const float* x = nullptr;  // [rows, cols], x_stride floats from row to row
  void* y = nullptr;         // 16-bit [rows, cols], contiguous
  std::int64_t rows = 0;     // 0 launches nothing
  std::int64_t cols = 0;
  std::int64_t x_stride = 0;  // >= cols
  bool half = false;  // to half precision (what is beyond its range becomes infinite), not bfloat16
  bool dependent_launch = false;  // may start before the kernel ahead of it in the stream has ended
};

// On any device of compute capability 8.0. Fastest where x and y lie on 16 bytes, cols is a
// multiple of 8 and x_stride of 4. NaN stays NaN, infinities stay.
cudaError_t round_rows(const RoundRows& args, cudaStream_t stream);

}  // namespace nibble::cuda
