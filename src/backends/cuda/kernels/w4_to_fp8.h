// Packed 4-bit weights to E4M3: the exact integers code - zero, row by row.
#pragma once

#include <cuda_runtime_api.h>

#include "backends/cuda/kernels/w4_matrix.h"

namespace nibble::cuda {

// y is E4M3 [weight.rows, weight.cols], on 16 bytes; weight.cols a multiple of 128 and zero points
// up to 16, so that every value is exact. The scales stay as they are: with groups of 128 or one
// group they are those of an Fp8Matrix (kernels/fp8_large.h). cudaErrorInvalidValue for other
// sizes.
cudaError_t w4_to_fp8(const W4Matrix& weight, void* y, cudaStream_t stream);

}  // namespace nibble::cuda
