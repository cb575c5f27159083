// Copies from global to shared memory that run beside the threads that asked for them (cp.async,
// sm_80 and up). A thread sees its own copies after wait_for_copies; other threads need a barrier.
#pragma once

#include <cstdint>

#include "backends/cuda/device/shared_address.cuh"

namespace nibble::cuda {

// kBytes: 4, 8 or 16, to which both addresses are aligned. Zeros are written, and nothing is read,
// when not `valid`.
template <int kBytes>
__device__ __forceinline__ void copy_async(std::uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(kBytes),
                 "r"(bytes)
                 : "memory");
  }
}

// What is read once and never again, as weights are, leaves the L2 cache first.
__device__ __forceinline__ std::uint64_t evict_first_policy() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// 16 bytes under a policy of the L2 cache.
__device__ __forceinline__ void copy_async(std::uint32_t to, const void* from, bool valid,
                                           std::uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to),
               "l"(from), "r"(valid ? 16 : 0), "l"(policy)
               : "memory");
}

// 16 bytes of which the first `count` (0 to 16) are read, the rest zeros.
__device__ __forceinline__ void copy_16_async(std::uint32_t to, const void* from, int count) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(count)
               : "memory");
}

// Ends a group of copies of this thread; an empty group counts too.
__device__ __forceinline__ void end_copy_group() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Returns when at most kGroups of this thread's groups are still under way.
template <int kGroups>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

}  // namespace nibble::cuda
