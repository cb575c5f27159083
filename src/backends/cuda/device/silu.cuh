#pragma once

namespace nibble::cuda {

__device__ __forceinline__ float silu_times(float gate, float up) {
  return gate / (1.0f + __expf(-gate)) * up;
}

}  // namespace nibble::cuda
