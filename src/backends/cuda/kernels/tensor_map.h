// Descriptions of tensors in global memory for the bulk copy engine.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace nibble::cuda {

// A tensor of three dimensions, the innermost first and contiguous, and the box of it that a copy
// takes. What of a box lies outside arrives as zeros.
struct TensorBox {
  const void* data = nullptr;    // on 16 bytes
  int element_bytes = 0;         // 1, 2, 4 (float32) or 8
  std::int64_t sizes[3] = {};    // elements
  std::int64_t strides[2] = {};  // bytes, of dimensions 1 and 2; multiples of 16
  int box[3] = {};               // elements, up to 256 each; box[0] of them a multiple of 16 bytes
  bool swizzled = false;         // box[0] is 128 bytes and these rows are swizzled on 8 x 128 bytes
};

// cudaErrorNotSupported where the driver knows no tensor maps, cudaErrorInvalidValue where it
// refuses these sizes.
cudaError_t make_tensor_map(const TensorBox& box, CUtensorMap* map);

}  // namespace nibble::cuda
