#include <cuda_runtime.h>

#include "backends/cuda/kernels/tensor_map.h"

namespace nibble::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// Through the runtime, so that nothing links against the driver's library.
Encode find_encode() {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
  constexpr unsigned kSince = 12000;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, kSince, cudaEnableDefault,
                                       &found) != cudaSuccess ||
      found != cudaDriverEntryPointSuccess) {
    return nullptr;
  }
  return reinterpret_cast<Encode>(entry);
}

CUtensorMapDataType type_of(int element_bytes) {
  switch (element_bytes) {
    case 1:
      return CU_TENSOR_MAP_DATA_TYPE_UINT8;
    case 2:
      return CU_TENSOR_MAP_DATA_TYPE_UINT16;
    case 4:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    default:
      return CU_TENSOR_MAP_DATA_TYPE_UINT64;
  }
}

}  // namespace

cudaError_t make_tensor_map(const TensorBox& box, CUtensorMap* map) {
  static const Encode encode = find_encode();
  if (encode == nullptr) return cudaErrorNotSupported;
  cuuint64_t sizes[3];
  cuuint32_t box_sizes[3];
  for (int i = 0; i < 3; ++i) {
    sizes[i] = static_cast<cuuint64_t>(box.sizes[i]);
    box_sizes[i] = static_cast<cuuint32_t>(box.box[i]);
  }
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(box.strides[0]),
                                 static_cast<cuuint64_t>(box.strides[1])};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result =
      encode(map, type_of(box.element_bytes), 3, const_cast<void*>(box.data), sizes, strides,
             box_sizes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             box.swizzled ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace nibble::cuda
