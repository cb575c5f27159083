// Addresses of shared memory as instructions take them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace nibble::cuda {

// Of a generic pointer into shared memory.
__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

}  // namespace nibble::cuda
