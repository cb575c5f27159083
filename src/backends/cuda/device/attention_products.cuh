// What attention needs beside the products of wgmma.cuh. Keys and values lie in shared memory as
// tiles of [columns / 64][rows][64] bf16 numbers in the 128-byte swizzle. Compute capability 9.0a.
#pragma once

#include "backends/cuda/device/wgmma.cuh"

namespace nibble::cuda {

// Values, whose rows (keys) run along k, from an address on 2048 bytes on, where 16 rows begin; the
// next 64 columns lie `columns_at` bytes further.
__device__ __forceinline__ std::uint64_t values_descriptor(std::uint32_t address,
                                                           std::uint32_t columns_at) {
  constexpr std::uint64_t kAtom = std::uint64_t{1024 >> 4} << 32;
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  return kSwizzle128 | kAtom | std::uint64_t{columns_at >> 4} << 16 | ((address & 0x3ffff) >> 4);
}

#if __CUDA_ARCH_FEAT_SM90_ALL

// Products write these registers until they are waited for: keeps what the compiler does with them
// on this side.
template <int kCount>
__device__ __forceinline__ void pin(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

#endif

}  // namespace nibble::cuda
