// Blocks of one cluster: meet the others, reach into their shared memory. Compute
// capability 9.0.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace nibble::cuda {

#if __CUDA_ARCH__ >= 900

// All threads of all blocks; writes before it are seen after it.
__device__ __forceinline__ void sync_cluster() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

// All threads of all blocks; orders nothing but the barriers published before (mbarrier.cuh).
__device__ __forceinline__ void meet_cluster() {
  asm volatile(
      "barrier.cluster.arrive.relaxed.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

// Where a shared-memory address of this block lies in block `rank`.
__device__ __forceinline__ std::uint32_t address_at(std::uint32_t address, std::uint32_t rank) {
  std::uint32_t remote;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
  return remote;
}

// One arrival at a barrier of such an address. Says that this thread is done reading what the other
// block may now overwrite; its own writes are not published there.
__device__ __forceinline__ void arrive_remote(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

#endif

}  // namespace nibble::cuda
