// Stores into the shared memory of another block of the cluster that count towards a barrier there
// (PTX ISA, st.async): the reader waits for the barrier (device/mbarrier.cuh), nobody for a fence.
// Compute capability 9.0.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace nibble::cuda {

#if __CUDA_ARCH__ >= 900

// Says that this block runs and has set up its barriers (publish_barriers). All threads.
__device__ __forceinline__ void announce_block() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

// Until all blocks of the cluster have done so. All threads.
__device__ __forceinline__ void wait_for_blocks() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// 16 bytes to the address `to` of block `rank`, 16 bytes to its barrier of address `barrier`.
__device__ __forceinline__ void store_counted_at(std::uint32_t to, std::uint32_t rank, float4 value,
                                                 std::uint32_t barrier) {
  asm volatile(
      "{\n"
      ".reg .b32 remote, remote_barrier;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mapa.shared::cluster.u32 remote_barrier, %2, %1;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [remote], {%3, %4, %5, %6}, "
      "[remote_barrier];\n"
      "}" ::"r"(to),
      "r"(rank), "r"(barrier), "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w)
      : "memory");
}

#endif

}  // namespace nibble::cuda
