// What the products of many rows on warpgroups have in common: how tiles are dealt to clusters, the
// ring of stages in shared memory, sums over blocks that split k, and the way out.
//
// D = W x^T: a block of threads computes a tile of kRows rows of W by kTokens rows of x, and a
// warpgroup 64 of these rows, in the registers of wgmma (device/wgmma.cuh). Blocks of a cluster
// work together in two ways: `share` neighbours in n have the same tokens, and each loads its part
// of x for all of them; `split` blocks have the same tile, take a part of k each and add up through
// each other's shared memory.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "backends/cuda/device/bulk_copy.cuh"
#include "backends/cuda/device/cluster.cuh"
#include "backends/cuda/device/mbarrier.cuh"
#include "backends/cuda/device/shared_access.cuh"

namespace nibble::cuda {

inline constexpr int kLargeSharedBytes = 227 * 1024;
inline constexpr int kLargeBarrierBytes = 1024;
// Of a tile of so many tokens, those that leave through shared memory at a time: four blocks may
// share out a tile of 64.
__host__ __device__ constexpr int out_tokens(int tokens) { return tokens == 64 ? 16 : 32; }
inline constexpr int kOutPieces = 2;                        // buffers of a warpgroup
inline constexpr int kOutBytes = kOutPieces * 64 * 32 * 4;  // of a warpgroup
inline constexpr int kOutMeeting = 1;  // barriers of the warpgroups on their way out: 1, 2, ...
inline constexpr int kTokenTilesOfGroup = 8;  // neighbours in time, that reuse x and W in the L2

struct LargeGrid {
  int n;
  int k_blocks;   // stages of the whole k
  int row_tiles;  // of `share` tiles each
  int token_tiles;
  int share, split;
};

struct LargeOut {
  CUtensorMap y;  // boxes of 32 rows of W by out_tokens(), swizzled
  const float* bias;
  bool accumulate;
};

struct Tile {
  int row;    // first of this block of threads
  int token;  // first
};

// Tiles of a block of threads: first, first + step, ...
struct Steps {
  int first, step, tiles;
};

// Where a block of threads stands in its cluster, and what part of k it has.
struct Place {
  int share_rank, split_rank;
  int k_begin, k_end;
};

// A thread that multiplies.
struct Lane {
  int group;  // warpgroup, from 0
  int warp;   // of the warpgroup, 0 to 3
  int lane;
  __device__ __forceinline__ int g() const { return lane / 4; }
  __device__ __forceinline__ int c() const { return lane % 4; }
  __device__ __forceinline__ bool leads() const { return warp == 0 && lane == 0; }
};

#if __CUDA_ARCH__ >= 900

__device__ __forceinline__ Place find_place(const LargeGrid& grid) {
  const int rank = static_cast<int>(cluster_rank());
  const int split_rank = rank / grid.share;
  return {rank % grid.share, split_rank, grid.k_blocks * split_rank / grid.split,
          grid.k_blocks * (split_rank + 1) / grid.split};
}

__device__ __forceinline__ Steps find_steps(const LargeGrid& grid) {
  const int blocks = grid.share * grid.split;
  return {static_cast<int>(blockIdx.x) / blocks, static_cast<int>(gridDim.x) / blocks,
          grid.row_tiles * grid.token_tiles};
}

template <int kRows, int kTokens>
__device__ __forceinline__ Tile find_tile(const LargeGrid& grid, int index, int share_rank) {
  const int of_group = kTokenTilesOfGroup * grid.row_tiles;
  const int group = index / of_group;
  const int first = group * kTokenTilesOfGroup;
  const int width = min(kTokenTilesOfGroup, grid.token_tiles - first);
  const int within = index - group * of_group;
  const int row_tile = within / width;
  return {(row_tile * grid.share + share_rank) * kRows, (first + within % width) * kTokens};
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

// Adds up the tile over the blocks that split k: block s ends up with the sums of the s-th part of
// the tokens. Every thread of the cluster passes through the same two meetings, the loading ones in
// sync_split.
template <int kConsumers, int kTokens>
__device__ __forceinline__ void add_split(const LargeGrid& grid, const Place& place,
                                          std::uint32_t stages, int thread,
                                          float (&d)[kTokens / 2]) {
  constexpr int kPieces = kTokens / 8;  // of 4 sums
  constexpr int kPieceBytes = kConsumers * 128 * 16;
  const int of_part = kPieces / grid.split;
  const std::uint32_t mine = stages + thread * 16;
  sync_cluster();  // nobody reads the stages any more
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    const int part = j / of_part;
    if (part != place.split_rank) {
      const std::uint32_t slot = (place.split_rank * of_part + j % of_part) * kPieceBytes;
      store_remote(address_at(mine + slot, part * grid.share + place.share_rank),
                   make_float4(d[4 * j], d[4 * j + 1], d[4 * j + 2], d[4 * j + 3]));
    }
  }
  sync_cluster();
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    if (j / of_part != place.split_rank) continue;
    for (int s = 0; s < grid.split; ++s) {
      if (s == place.split_rank) continue;
      const uint4 v = load_shared_16(mine + (s * of_part + j % of_part) * kPieceBytes);
      d[4 * j] += __uint_as_float(v.x);
      d[4 * j + 1] += __uint_as_float(v.y);
      d[4 * j + 2] += __uint_as_float(v.z);
      d[4 * j + 3] += __uint_as_float(v.w);
    }
  }
}

__device__ __forceinline__ void sync_split(const LargeGrid& grid) {
  if (grid.split > 1) {
    sync_cluster();
    sync_cluster();
  }
}

// Where output (row, token) of a piece of 64 x kOutTokens goes in shared memory: two boxes of 32
// rows, a token's 128 bytes swizzled as the copy engine expects. Conflict-free: lanes of a fragment
// differ in two 16-byte chunks and four even tokens.
template <int kOutTokens>
__device__ __forceinline__ std::uint32_t out_at(int row, int token) {
  const int chunk = (row % 32 / 4) ^ (token % 8);
  return static_cast<std::uint32_t>(row / 32 * (32 * kOutTokens * 4) + token * 128 + chunk * 16 +
                                    row % 4 * 4);
}

// A warpgroup's 64 rows of a tile on their way out, by pieces of kOutTokens through its buffers;
// the copies to global memory run on while the next tile is multiplied.
template <int kTokens>
struct Storer {
  static constexpr int kOutTokens = out_tokens(kTokens);
  static constexpr int kPieceBytes = 64 * kOutTokens * 4;

  const LargeOut& out;
  const Lane& me;
  std::uint32_t buffers;
  int piece = 0;  // all so far

  __device__ __forceinline__ void store_piece(const float* d, const float (&bias)[2], int row,
                                              int token) {
    const std::uint32_t buffer = buffers + piece % kOutPieces * kPieceBytes;
    const int in_block = 16 * me.warp + me.g();
#pragma unroll
    for (int j = 0; j < kOutTokens / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        store_shared(
            buffer + out_at<kOutTokens>(in_block + 8 * (i / 2), 8 * j + 2 * me.c() + i % 2),
            d[4 * j + i] + bias[i / 2]);
      }
    }
    publish_to_copies();
    // Once all have met, the next buffer is free.
    if (me.leads()) wait_stores_read<kOutPieces - 2>();
    sync_threads_of(kOutMeeting + me.group, 128);
    if (me.leads()) {
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t from = buffer + half * (kPieceBytes / 2);
        out.accumulate ? add_box(&out.y, from, row + 32 * half, token, 0)
                       : store_box(&out.y, from, row + 32 * half, token, 0);
      }
      commit_stores();
    }
    ++piece;
  }

  // The part of the tokens that this block of threads has of a tile split along k.
  __device__ __forceinline__ void store_tile(const LargeGrid& grid, const Place& place,
                                             const Tile& tile, const float (&d)[kTokens / 2]) {
    const int of_part = kTokens / kOutTokens / grid.split;
    const int block = tile.row + me.group * 64;
    const int row = block + 16 * me.warp + me.g();
    const bool has_bias = out.bias != nullptr && block < grid.n;
    const float bias[2] = {has_bias ? out.bias[row] : 0.0f, has_bias ? out.bias[row + 8] : 0.0f};
#pragma unroll
    for (int j = 0; j < kTokens / kOutTokens; ++j) {
      if (j / of_part != place.split_rank) continue;
      store_piece(d + j * kOutTokens / 2, bias, block, tile.token + j * kOutTokens);
    }
  }

  // Before the block leaves.
  __device__ __forceinline__ void finish() const {
    if (me.leads()) wait_stores_read<0>();
  }
};

#endif

}  // namespace nibble::cuda
