// What the products of many rows on warpgroups have in common: how tiles are dealt to blocks, the
// ring of stages in shared memory, and the way out of long tiles.
//
// D = W x^T: a block of threads computes a tile of rows of W by kTokens rows of x, and a warpgroup
// 64 or twice 64 of these rows, in the registers of wgmma (device/wgmma.cuh). `share` blocks of a
// cluster, neighbours in n, have the same tokens, and each loads its part of x for all of them.
// Tiles are dealt out whole while there is one for every cluster. Of the others, which may be all,
// k is shared out, so that no cluster is idle: by `split` clusters a tile, equally
// (device/large_split.cuh), or over all clusters, so that each has the end of one tile, the begin
// of another, or both (device/large_rest.cuh).
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "backends/cuda/device/bulk_copy.cuh"
#include "backends/cuda/device/cluster.cuh"
#include "backends/cuda/device/mbarrier.cuh"
#include "backends/cuda/device/shared_access.cuh"
#include "backends/cuda/device/w4_to_fp8.cuh"
#include "backends/cuda/kernels/w4_large.h"

namespace nibble::cuda {

inline constexpr int kLargeSharedBytes = 227 * 1024;
inline constexpr int kLargeBarrierBytes = 1024;
inline constexpr int kLargeMultipliers = 2;  // warpgroups that multiply
inline constexpr int kLargeThreads = 128 * (kLargeMultipliers + 1);
inline constexpr int kOutTokens = 32;  // of a tile that leave through shared memory at a time
inline constexpr int kOutPieces = 2;   // buffers of a warpgroup
inline constexpr int kOutBytes = kOutPieces * 64 * kOutTokens * 4;  // of a warpgroup
// Barriers of the block: of each warpgroup on its way out, 1 and 2; of both.
inline constexpr int kOutMeeting = 1;
inline constexpr int kSplitMeeting = kOutMeeting + kLargeMultipliers;
inline constexpr int kTokenTilesOfGroup = 8;  // neighbours in time, that reuse x and W in the L2

// Tiles are counted in those of clusters.
struct LargeGrid {
  int k_blocks;   // stages of the whole k
  int sum_boxes;  // stages of sums of x
  int row_tiles;  // of all parts
  int token_tiles;
  int whole;  // tiles that are dealt out whole
  int share;
  int split;                         // of the others; 1: over all clusters
  int first_tile[kW4LargeMaxParts];  // row tile of each part; beyond the last part: INT_MAX
};

// A weight, as the kernel is told of it.
struct LargePart {
  CUtensorMap codes, scales, zeros;
  CUtensorMap scales_of_box, zeros_of_box;  // of fp8: of as many groups as a box of sums of x has
  CUtensorMap out;  // of tiles of 256 tokens: boxes of 32 rows of W by kOutTokens, swizzled
  const float* bias;
  float* y;
  std::int64_t y_stride;
  int rows;
};

struct LargeParams {
  CUtensorMap x;
  CUtensorMap x_sums;  // of fp8: boxes of kFp8SumGroups groups
  LargePart parts[kW4LargeMaxParts];
  LargeGrid grid;
  const float* x_scales;     // of fp8
  __nv_bfloat16* rounded_y;  // of a pair, or null
  float4* sums;              // of blocks that split k
  unsigned* counters;        // two of a tile
  int m;
  int blocks_of_group;  // stages that share a scale; 1 below, too
  int group_mask;       // k_block & group_mask is 0 where a group begins
  bool has_zeros;
  bool scales_are_bf16;
  bool accumulate;
  bool silu_pair;
};

struct Tile {
  int part;
  int row;    // of the part, first of this block of threads
  int token;  // first
};

// Where a block of threads stands in its cluster, and this among the others.
struct Place {
  int share_rank;
  int cluster, clusters;
};

// Stages of a tile that a block of threads multiplies.
struct Stretch {
  int tile;
  int k_begin, k_end;
};

// A thread that multiplies.
struct Lane {
  int group;  // warpgroup, from 0
  int warp;   // of the warpgroup, 0 to 3
  int lane;
  __device__ __forceinline__ int g() const { return lane / 4; }
  __device__ __forceinline__ int c() const { return lane % 4; }
  __device__ __forceinline__ int row() const { return 16 * warp + g(); }
  __device__ __forceinline__ int thread() const { return 128 * group + 32 * warp + lane; }
  __device__ __forceinline__ bool leads() const { return warp == 0 && lane == 0; }
};

#if __CUDA_ARCH__ >= 900

__device__ __forceinline__ Place find_place(const LargeGrid& grid) {
  return {static_cast<int>(blockIdx.x) % grid.share, static_cast<int>(blockIdx.x) / grid.share,
          static_cast<int>(gridDim.x) / grid.share};
}

__device__ __forceinline__ int rest_of_tiles(const LargeGrid& grid) {
  return grid.row_tiles * grid.token_tiles - grid.whole;
}

// The first stage of a cluster, of those of the tiles that are not dealt out whole, where these are
// shared out over all clusters.
__device__ __forceinline__ int first_stage(const LargeGrid& grid, int cluster, int clusters) {
  const int stages = rest_of_tiles(grid) * grid.k_blocks;
  return stages / clusters * cluster + min(cluster, stages % clusters);
}

// What a cluster does, in its order: whole tiles, then its stages of others, of one tile or two.
// Without branches: the compiler must see that all lanes go the same way, or it keeps what they
// have in common in registers of each.
class Walk {
 public:
  __device__ __forceinline__ explicit Walk(const LargeGrid& grid)
      : grid_(grid),
        place_(find_place(grid)),
        whole_((grid.whole - place_.cluster + place_.clusters - 1) / place_.clusters),
        begin_(stage_of(place_.cluster)),
        end_(stage_of(place_.cluster + 1)),
        tile_(begin_ / grid.k_blocks) {}

  __device__ __forceinline__ int count() const {
    return whole_ + (end_ > begin_ ? 1 : 0) + (end_ > (tile_ + 1) * grid_.k_blocks ? 1 : 0);
  }

  __device__ __forceinline__ Stretch at(int i) const {
    const bool whole = i < whole_;
    const int tile = tile_ + i - whole_;
    const int first = tile * grid_.k_blocks;
    return {whole ? place_.cluster + i * place_.clusters : grid_.whole + tile,
            whole ? 0 : max(begin_ - first, 0),
            whole ? grid_.k_blocks : min(end_ - first, grid_.k_blocks)};
  }

 private:
  // The first stage of a cluster, of those of all tiles that are not dealt out whole.
  __device__ __forceinline__ int stage_of(int cluster) const {
    if (grid_.split == 1) return first_stage(grid_, cluster, place_.clusters);
    const int k = grid_.k_blocks;
    const int stage = cluster / grid_.split * k + k * (cluster % grid_.split) / grid_.split;
    return min(stage, rest_of_tiles(grid_) * k);
  }

  const LargeGrid& grid_;
  const Place place_;
  int whole_;
  int begin_, end_;
  int tile_;  // of those that are not dealt out whole, the first
};

// rows: of a part, in a tile.
__device__ __forceinline__ Tile find_tile(const LargeGrid& grid, int index, int share_rank,
                                          int rows, int tokens) {
  const int of_group = kTokenTilesOfGroup * grid.row_tiles;
  const int group = index / of_group;
  const int first = group * kTokenTilesOfGroup;
  const int width = min(kTokenTilesOfGroup, grid.token_tiles - first);
  const int within = index - group * of_group;
  const int row_tile = within / width;
  int part = 0;
#pragma unroll
  for (int i = 1; i < kW4LargeMaxParts; ++i) part += row_tile >= grid.first_tile[i] ? 1 : 0;
  return {part, ((row_tile - grid.first_tile[part]) * grid.share + share_rank) * rows,
          (first + within % width) * tokens};
}

// Stages of the ring and their barriers, in shared memory. A stage's `full` completes when its
// bytes are there, `empty` when all that read it, in every block that shares it, are done.
template <int kStages, int kStageBytes>
struct Ring {
  std::uint32_t stages, barriers;
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ std::uint32_t at() const { return stages + stage * kStageBytes; }
  __device__ __forceinline__ std::uint32_t full() const { return barriers + stage * 8; }
  __device__ __forceinline__ std::uint32_t empty() const {
    return barriers + (kStages + stage) * 8;
  }
  __device__ __forceinline__ void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  // By one thread, before the cluster meets.
  __device__ __forceinline__ void init(int loaders, int readers) const {
    for (int i = 0; i < kStages; ++i) {
      init_barrier(barriers + i * 8, loaders);
      init_barrier(barriers + (kStages + i) * 8, readers);
    }
    publish_barriers();
  }
};

// Where output (row, token) of a piece of 64 x kOutTokens goes in shared memory: two boxes of 32
// rows, a token's 128 bytes swizzled as the copy engine expects. Every 8 tokens the same.
// Conflict-free: lanes of a fragment differ in two 16-byte chunks and four even tokens.
__device__ __forceinline__ std::uint32_t out_at(int row, int token) {
  const int chunk = (row % 32 / 4) ^ (token % 8);
  return static_cast<std::uint32_t>(row / 32 * (32 * kOutTokens * 4) + token * 128 + chunk * 16 +
                                    row % 4 * 4);
}

// A warpgroup's 64 rows of a tile on their way out, by pieces of kOutTokens through its buffers;
// the copies to global memory run on while the next tile is multiplied.
// Of fp8 (kScaled) a thread of the warpgroup keeps the scales of a token or two until then.
template <int kTokens, bool kScaled>
struct Storer {
  static constexpr int kPieceBytes = 64 * kOutTokens * 4;

  const LargeParams& p;
  const Lane& me;
  std::uint32_t buffers;
  std::uint32_t scales;  // of the tile's tokens
  int piece = 0;         // all so far
  float own[2];          // of tokens that are 128 apart

  // Before the tile's products.
  __device__ __forceinline__ void begin(const Tile& tile) {
    if constexpr (kScaled) {
#pragma unroll
      for (int i = 0; i < (kTokens + 127) / 128; ++i) {
        const int token = tile.token + me.thread() % 128 + 128 * i;
        own[i] = kFp8SumUnit * p.x_scales[min(token, p.m - 1)];
      }
    }
  }

  // `first`: token of the tile.
  __device__ __forceinline__ void store_piece(const CUtensorMap* out, const float* d,
                                              const float (&bias)[2], int row, int token,
                                              int first) {
    const std::uint32_t buffer = buffers + piece % kOutPieces * kPieceBytes;
    std::uint32_t at[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) at[i] = buffer + out_at(me.row() + 8 * (i / 2), 2 * me.c() + i % 2);
#pragma unroll
    for (int j = 0; j < kOutTokens / 8; ++j) {
      float2 by{1, 1};
      if (kScaled) by = load_shared_8(scales + 4 * (first + 8 * j + 2 * me.c()));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        store_shared(at[i] + 8 * 128 * j,
                     fmaf(i % 2 == 0 ? by.x : by.y, d[4 * j + i], bias[i / 2]));
      }
    }
    publish_to_copies();
    // Once all have met, the next buffer is free.
    if (me.leads()) wait_stores_read<kOutPieces - 2>();
    sync_threads_of(kOutMeeting + me.group, 128);
    if (me.leads()) {
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t from = buffer + half * (kPieceBytes / 2);
        p.accumulate ? add_box(out, from, row + 32 * half, token, 0)
                     : store_box(out, from, row + 32 * half, token, 0);
      }
      commit_stores();
    }
    ++piece;
  }

  __device__ __forceinline__ void store_tile(const Tile& tile, const float (&d)[kTokens / 2]) {
    const LargePart& part = p.parts[tile.part];
    const int block = tile.row + me.group * 64;
    const int row = block + me.row();
    const bool has_bias = part.bias != nullptr && block < part.rows;
    const float bias[2] = {has_bias ? part.bias[row] : 0.0f, has_bias ? part.bias[row + 8] : 0.0f};
    if constexpr (kScaled) {
#pragma unroll
      for (int i = 0; i < (kTokens + 127) / 128; ++i) {
        const int token = me.thread() % 128 + 128 * i;
        if (token < kTokens) store_shared(scales + 4 * token, own[i]);
      }
      sync_threads_of(kOutMeeting + me.group, 128);
    }
#pragma unroll
    for (int j = 0; j < kTokens / kOutTokens; ++j) {
      store_piece(&part.out, d + j * kOutTokens / 2, bias, block, tile.token + j * kOutTokens,
                  j * kOutTokens);
    }
  }

  // Before the block leaves.
  __device__ __forceinline__ void finish() const {
    if (me.leads()) wait_stores_read<0>();
  }
};

#endif

}  // namespace nibble::cuda
