// Tiles whose k is shared out over all clusters (Walk in device/large_tile.cuh): who has the begin
// of a tile adds the sums of those that have the rest of it, in the order of k, and stores it. The
// others leave their sums in global memory and go on. A block leaves sums at most once, before it
// waits for any, and waits only for blocks behind it in the grid, so that nobody waits for ever,
// even where not all blocks fit on the device at once.
#pragma once

#include "backends/cuda/device/large_split.cuh"

namespace nibble::cuda {

#if __CUDA_ARCH__ >= 900

// The sums that a warpgroup of a block leaves, of a thread of it: float4s 128 apart.
template <int kBlocks, int kSums>
__device__ __forceinline__ float4* sums_left(const LargeParams& p, int block, const Lane& me) {
  constexpr int kOfGroup = kBlocks * kSums / 4 * 128;
  return p.sums + (block * kLargeMultipliers + me.group) * kOfGroup + me.thread() % 128;
}

// Nonzero while they wait there to be added.
__device__ __forceinline__ unsigned* mark_of(const LargeParams& p, int block, const Lane& me) {
  return p.counters + block * kLargeMultipliers + me.group;
}

template <int kBlocks, int kSums>
__device__ __forceinline__ void leave_sums(const LargeParams& p, const Lane& me,
                                           const float (&d)[kBlocks][kSums]) {
  const auto block = static_cast<int>(blockIdx.x);
  float4* const to = sums_left<kBlocks, kSums>(p, block, me);
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
    for (int j = 0; j < kSums / 4; ++j) {
      __stcg(to + (b * kSums / 4 + j) * 128,
             make_float4(d[b][4 * j], d[b][4 * j + 1], d[b][4 * j + 2], d[b][4 * j + 3]));
    }
  }
  __threadfence();
  sync_threads_of(kOutMeeting + me.group, 128);
  if (me.leads()) {
    asm volatile("st.release.gpu.global.u32 [%0], 1;" ::"l"(mark_of(p, block, me)) : "memory");
  }
}

// Returns once the sums of the mark are there, and clears it: nobody else waits for it.
__device__ __forceinline__ void take_mark(unsigned* mark, const Lane& me) {
  if (me.leads()) {
    constexpr int kTries = 1 << 24;  // then trap rather than hang
    unsigned there = 0;
    for (int i = 0; i < kTries && there == 0; ++i) {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(there) : "l"(mark) : "memory");
    }
    if (there == 0) __trap();
    *mark = 0;
  }
  sync_threads_of(kOutMeeting + me.group, 128);
}

// Adds what the clusters behind this one have of the tile.
template <int kBlocks, int kSums>
__device__ __forceinline__ void add_sums_left(const LargeParams& p, const Place& place,
                                              const Stretch& stretch, const Lane& me,
                                              float (&d)[kBlocks][kSums]) {
  const LargeGrid& grid = p.grid;
  const int end = (stretch.tile - grid.whole + 1) * grid.k_blocks;
#pragma unroll 1
  for (int cluster = place.cluster + 1; first_stage(grid, cluster, place.clusters) < end;
       ++cluster) {
    const int block = cluster * grid.share + place.share_rank;
    take_mark(mark_of(p, block, me), me);
    const float4* const from = sums_left<kBlocks, kSums>(p, block, me);
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int j = 0; j < kSums / 4; ++j) {
        const float4 sums = __ldcg(from + (b * kSums / 4 + j) * 128);
        d[b][4 * j] += sums.x;
        d[b][4 * j + 1] += sums.y;
        d[b][4 * j + 2] += sums.z;
        d[b][4 * j + 3] += sums.w;
      }
    }
  }
}

#endif

}  // namespace nibble::cuda
