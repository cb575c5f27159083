// Packed weights to bf16 on the device, for libraries that multiply matrices of bf16.
#pragma once

#include <cuda_runtime_api.h>

#include "backends/cuda/kernels/fragment_matrix.h"

namespace nibble::cuda {

struct DecodeFragments {
  FragmentMatrix w;
  void* out = nullptr;            // bfloat16 [w.rows, w.cols], contiguous, on 16 bytes
  bool dependent_launch = false;  // may start before the kernel ahead of it in the stream has ended
};

// (code - zero) * scale in float32, rounded to nearest even. On any device of compute capability
// 8.0.
cudaError_t decode_fragments(const DecodeFragments& args, cudaStream_t stream);

}  // namespace nibble::cuda
