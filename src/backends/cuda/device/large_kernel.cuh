// The kernel of 4-bit weights on warpgroups, but for what is done with a stage (w4_large.cu,
// w4_fp8.cu), and its launch.
//
// Two threads of the first warpgroup keep a ring of stages filled: the box of x (swizzled, by a
// tensor map) and the packed codes, scales and zero points of the block's rows. The other
// warpgroups own one or two blocks of 64 rows each, the b-th of warpgroup w in slot b *
// kLargeMultipliers + w of the stage.
#pragma once

#include <climits>

#include "backends/cuda/device/dependent_launch.cuh"
#include "backends/cuda/device/large_rest.cuh"
#include "backends/cuda/device/large_tile.cuh"
#include "backends/cuda/kernels/fp8_rows.h"

namespace nibble::cuda {

inline constexpr int kCodeBytes = 2048;  // of 64 x 64 codes

// kBlocks: of 64 rows, of a warpgroup. kUnits: of 64 of k in a stage, a swizzled row of x of 128
// bytes. kGroups: of scales in a stage, if more than one. kSums: x comes with sums of its groups
// (kernels/fp8_rows.h). These are stages, too, ahead of those of k: a box of sums where x is, the
// scales of its groups where codes are. kStoresBoxes: whole tiles leave through shared memory.
template <int kTokens_, int kBlocks_, int kUnits_, int kGroups_, bool kSums_, bool kStoresBoxes_>
struct LargeConfig {
  static constexpr int kTokens = kTokens_;
  static constexpr int kBlocks = kBlocks_;
  static constexpr int kUnits = kUnits_;
  static constexpr int kGroups = kGroups_;
  static constexpr bool kSums = kSums_;
  static constexpr bool kStoresBoxes = kStoresBoxes_;
  // Whether tiles may be split. With that code in the same kernel registers would not do: products
  // would wait for each other.
  static constexpr bool kSplits = !kStoresBoxes;
  // Of threads that load and that multiply; all start with 168.
  static constexpr int kLoaderRegisters = kTokens == 192 ? 24 : 40;
  static constexpr int kMultiplierRegisters = kTokens == 192 ? 240 : 232;
  static_assert(kLoaderRegisters + kLargeMultipliers * kMultiplierRegisters == 168 * 3);
  static constexpr int kSlots = kLargeMultipliers * kBlocks;
  static constexpr int kRows = 64 * kSlots;
  static constexpr int kBoxElements = kUnits == 1 ? 64 : 128;  // of x in 128 bytes
  static constexpr int kSlotBytes = kUnits * kCodeBytes;
  static constexpr int kXBytes = kTokens * 128;
  static constexpr int kCodesAt = kXBytes;
  static constexpr int kScalesAt = kCodesAt + kSlots * kSlotBytes;
  static constexpr int kZerosAt = kScalesAt + kSlots * kGroups * 128;
  static constexpr int kZeroGroups = kSums ? kFp8SumGroups : kGroups;
  static constexpr int kUsedBytes = kZerosAt + kSlots * kZeroGroups * 64;
  static_assert(!kSums || kSlotBytes == kFp8SumGroups * 128);
  static constexpr int kStageBytes = (kUsedBytes + 1023) / 1024 * 1024;
  static constexpr int kOutBuffers = kStoresBoxes ? kLargeMultipliers * kOutBytes : 0;
  static constexpr int kXScales = kStoresBoxes && kSums ? 2048 : 0;
  static_assert(kXScales == 0 || kXScales >= kLargeMultipliers * kTokens * 4);
  static constexpr int kStagesAt = kLargeBarrierBytes + kOutBuffers + kXScales;
  static_assert(kStagesAt % 1024 == 0);
  static constexpr int kStages = (kLargeSharedBytes - kStagesAt - 1024) / kStageBytes;
  static constexpr int kAllBytes = kStagesAt + kStages * kStageBytes + 1024;
  static_assert(2 * 8 * kStages <= kLargeBarrierBytes);
};

#if __CUDA_ARCH_FEAT_SM90_ALL

template <class C>
using RingOf = Ring<C::kStages, C::kStageBytes>;

template <class C>
using Sums = float[C::kBlocks][C::kTokens / 2];

__device__ __forceinline__ bool begins_group(const LargeParams& p, const Stretch& stretch,
                                             int k_block) {
  return k_block == stretch.k_begin || (k_block & p.group_mask) == 0;
}

// Boxes of sums that begin before a stage. A stretch has those that begin in it.
__device__ __forceinline__ int sum_boxes_before(int k_block) {
  return (k_block + kFp8SumGroups - 1) / kFp8SumGroups;
}

// Rows of a part that a tile takes.
template <class C>
__device__ __forceinline__ int rows_of_tile(const LargeParams& p) {
  return p.silu_pair ? C::kRows / 2 : C::kRows;
}

template <class C>
__device__ __forceinline__ Tile tile_at(const LargeParams& p, const Place& place, int index) {
  return find_tile(p.grid, index, place.share_rank, rows_of_tile<C>(p), C::kTokens);
}

// The scales and zero points of the groups of a box of sums.
template <class C>
__device__ __forceinline__ void load_factors(const LargeParams& p, RingOf<C>& ring,
                                             const Tile& tile, int box_of_sums) {
  constexpr std::uint32_t kScales = C::kSlots * C::kSlotBytes;
  const int group = p.group_mask == INT_MAX ? 0 : box_of_sums * kFp8SumGroups;
  wait_barrier(ring.empty(), ring.parity ^ 1);
  arrive_expecting(ring.full(), kScales + (p.has_zeros ? kScales / 2 : 0));
  for (int box = 0; box < (p.silu_pair ? 2 : 1); ++box) {
    const LargePart& part = p.parts[tile.part + box];
    const int slot = box * kLargeMultipliers;
    copy_box(ring.at() + C::kCodesAt + slot * C::kSlotBytes, &part.scales_of_box, 0, group,
             tile.row / 64, ring.full());
    if (p.has_zeros) {
      copy_box(ring.at() + C::kZerosAt + slot * C::kSlotBytes / 2, &part.zeros_of_box, 0, group,
               tile.row / 64, ring.full());
    }
  }
  ring.next();
}

// The thread that loads the weight: one box of all slots, or half of them from each of a pair.
// Scales and zero points come only where a group, or this block's part of k, begins. Weights do not
// depend on the kernel ahead, so there is no waiting for it.
template <class C>
__device__ __forceinline__ void load_weight(const LargeParams& p, RingOf<C> ring) {
  const Place place = find_place(p.grid);
  constexpr std::uint32_t kCodes = C::kScalesAt - C::kCodesAt;
  constexpr std::uint32_t kScales = C::kZerosAt - C::kScalesAt;
  const bool zeros = p.has_zeros && !C::kSums;
  const std::uint32_t of_group = kCodes + kScales + (zeros ? kScales / 2 : 0);
  const int boxes = p.silu_pair ? 2 : 1;
  const Walk walk(p.grid);
  for (int s = 0; s < walk.count(); ++s) {
    const Stretch stretch = walk.at(s);
    const Tile tile = tile_at<C>(p, place, stretch.tile);
    const int block = tile.row / 64;
    if constexpr (C::kSums) {
      const int end = sum_boxes_before(stretch.k_end);
      for (int i = sum_boxes_before(stretch.k_begin); i < end; ++i) {
        load_factors<C>(p, ring, tile, i);
      }
    }
    for (int k_block = stretch.k_begin; k_block < stretch.k_end; ++k_block) {
      const bool begins = begins_group(p, stretch, k_block);
      wait_barrier(ring.empty(), ring.parity ^ 1);
      arrive_expecting(ring.full(), begins ? of_group : kCodes);
      for (int box = 0; box < boxes; ++box) {
        const LargePart& part = p.parts[tile.part + box];
        const int slot = box * kLargeMultipliers;
        copy_box(ring.at() + C::kCodesAt + slot * C::kSlotBytes, &part.codes, 0,
                 C::kUnits * k_block, block, ring.full());
        if (!begins) continue;
        const int group = C::kGroups * (k_block / p.blocks_of_group);
        copy_box(ring.at() + C::kScalesAt + slot * C::kGroups * 128, &part.scales, 0, group, block,
                 ring.full());
        if (zeros) {
          copy_box(ring.at() + C::kZerosAt + slot * C::kGroups * 64, &part.zeros, 0, group, block,
                   ring.full());
        }
      }
      ring.next();
    }
  }
}

// The thread that loads x, its part of the box for every block that shares it.
template <class C>
__device__ __forceinline__ void load_x(const LargeParams& p, RingOf<C> ring) {
  const Place place = find_place(p.grid);
  const int part = p.grid.share == 1 ? 0 : C::kTokens / 2 * place.share_rank;
  constexpr std::uint16_t kBoth = 3;
  wait_for_kernel_ahead();
  const Walk walk(p.grid);
  for (int s = 0; s < walk.count(); ++s) {
    const Stretch stretch = walk.at(s);
    const int token = tile_at<C>(p, place, stretch.tile).token;
    const auto load = [&](const CUtensorMap* map, int column) {
      wait_barrier(ring.empty(), ring.parity ^ 1);
      arrive_expecting(ring.full(), C::kXBytes);
      if (p.grid.share == 1) {
        copy_box(ring.at(), map, column, token, 0, ring.full());
      } else {
        copy_box_to(ring.at() + part * 128, map, column, token + part, 0, ring.full(), kBoth);
      }
      ring.next();
    };
    if constexpr (C::kSums) {
      const int end = sum_boxes_before(stretch.k_end);
      for (int i = sum_boxes_before(stretch.k_begin); i < end; ++i) {
        load(&p.x_sums, i * kFp8SumBox);
      }
    }
    for (int k_block = stretch.k_begin; k_block < stretch.k_end; ++k_block) {
      load(&p.x, k_block * C::kBoxElements);
    }
  }
  let_next_kernel_start();
}

// M: what multiplies; M::run() makes the sums of a stretch.
template <class C, template <class> class M>
__device__ __forceinline__ void multiply_tiles(const LargeParams& p, std::uint32_t barriers,
                                               RingOf<C>& ring) {
  const int thread = static_cast<int>(threadIdx.x) - 128;
  const Lane me{thread / 128, thread / 32 % 4, thread % 32};
  M<C> multiplier(p, me, ring);
  const std::uint32_t buffers = barriers + kLargeBarrierBytes;
  Storer<C::kTokens, C::kSums> storer{p, me, buffers + me.group * kOutBytes,
                                      buffers + C::kOutBuffers + me.group * C::kTokens * 4};
  wait_for_kernel_ahead();
  const Place place = find_place(p.grid);
  const Walk walk(p.grid);
  const int count = walk.count();
  for (int s = 0; s < count; ++s) {
    const Stretch stretch = walk.at(s);
    const Tile tile = tile_at<C>(p, place, stretch.tile);
    Sums<C> d;
    if constexpr (C::kStoresBoxes) storer.begin(tile);
    multiplier.run(stretch, d);
    if (C::kSplits && stretch.tile >= p.grid.whole && p.grid.split > 1) {
      store_split<C::kBlocks, C::kTokens, C::kSums>(p, place, stretch.tile, tile, me, d);
      continue;
    }
    if (stretch.k_begin > 0) {
      leave_sums(p, me, d);
      continue;
    }
    if (stretch.k_end < p.grid.k_blocks) add_sums_left(p, place, stretch, me, d);
    if constexpr (C::kStoresBoxes) {
      storer.store_tile(tile, d[0]);
    } else {
      store_whole<C::kBlocks, C::kTokens, C::kSums>(p, tile, me, d);
    }
  }
  if constexpr (C::kStoresBoxes) storer.finish();
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <class C, template <class> class M>
__global__ void __launch_bounds__(kLargeThreads, 1)
    large_kernel(const __grid_constant__ LargeParams p) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ std::uint8_t shared[];
  // The same in every block of a cluster: all have the same layout of shared memory.
  const std::uint32_t barriers = (shared_address(shared) + 1023) & ~1023u;
  RingOf<C> ring{barriers + C::kStagesAt, barriers};
  if (threadIdx.x == 0) ring.init(2, 4 * kLargeMultipliers * p.grid.share);
  meet_cluster();
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(C::kLoaderRegisters));
    if (threadIdx.x == 0) load_weight<C>(p, ring);
    if (threadIdx.x == 32) load_x<C>(p, ring);
    __syncwarp();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(C::kMultiplierRegisters));
    multiply_tiles<C, M>(p, barriers, ring);
  }
  // A block must not leave while a neighbour still copies or arrives here.
  sync_cluster();
#else
  __trap();
#endif
}

}  // namespace nibble::cuda
