// Copies by the bulk copy engine, from global into shared memory (PTX ISA, cp.async.bulk.tensor).
// One thread issues a copy; its bytes count towards a barrier's phase. Compute capability 9.0.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace nibble::cuda {

#if __CUDA_ARCH__ >= 900

// The map's box at these coordinates, the innermost first; what lies outside the tensor arrives as
// zeros.
__device__ __forceinline__ void copy_box(std::uint32_t to, const CUtensorMap* map, int c0, int c1,
                                         int c2, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(barrier)
      : "memory");
}

// The same into each block of the cluster whose bit of `ranks` is set, at the same place and
// towards the same barrier there.
__device__ __forceinline__ void copy_box_to(std::uint32_t to, const CUtensorMap* map, int c0,
                                            int c1, int c2, std::uint32_t barrier,
                                            std::uint16_t ranks) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
      "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(barrier), "h"(ranks)
      : "memory");
}

// The other way: a box out of shared memory, and the same added to what is there (float32). Stores
// belong to the thread that issues them.
__device__ __forceinline__ void store_box(const CUtensorMap* map, std::uint32_t from, int c0,
                                          int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(
          map),
      "r"(c0), "r"(c1), "r"(c2), "r"(from)
      : "memory");
}

__device__ __forceinline__ void add_box(const CUtensorMap* map, std::uint32_t from, int c0, int c1,
                                        int c2) {
  asm volatile(
      "cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group"
      " [%0, {%1, %2, %3}], [%4];" ::"l"(map),
      "r"(c0), "r"(c1), "r"(c2), "r"(from)
      : "memory");
}

// Ordinary writes to shared memory of this thread, before a meeting of threads after which one of
// them stores the box.
__device__ __forceinline__ void publish_to_copies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void commit_stores() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Until at most kPending of this thread's last committed groups still read shared memory.
template <int kPending>
__device__ __forceinline__ void wait_stores_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

#endif

}  // namespace nibble::cuda
