// What the kernel of kernels/small_linear.h is told, its sizes, and who works on what.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "backends/cuda/kernels/small_linear.h"

namespace nibble::cuda::small {

inline constexpr int kWarps = 8;
inline constexpr int kThreads = 32 * kWarps;
inline constexpr int kLoadBytes = 512;  // of codes, 16 a lane
inline constexpr int kUnitBytes = 128;  // bf16 of 64 columns of one row of x
inline constexpr int kCellBytes = 512;  // sums of 16 rows x 8 rows of x, or 32 x 2
inline constexpr int kDigitRows = 2;    // up to so many rows of x are multiplied as digits

// What a warp has to send of a task. Digits are joined first: both tiles fit into one cell.
__host__ __device__ constexpr int cells_of(int tiles, int token_tiles) {
  return token_tiles == 0 ? 1 : tiles * token_tiles;
}

// Of a row of a chunk as digits (device/small_linear_digits.cuh).
__host__ __device__ constexpr int digit_row_bytes(int groups) {
  return 3 * 128 + (groups + 1) * 16;
}

struct Part {
  const unsigned char* codes;
  const unsigned char* scales;
  const unsigned char* zeros;
  const float* bias;
  float* y;
  std::int64_t y_stride;
  int first_task;  // of the launch
};

struct Arguments {
  Part parts[kSmallLinearMaxParts];
  int part_count;
  const float* x;
  std::int64_t x_stride;
  int m;
  int units;   // of 64 columns
  int groups;  // along k
  int tasks;
  int slices;  // of k, a block each
  int splits;  // of a slice, a warp each
  int stages;  // of a warp's ring
  bool bf16_scales;
  bool accumulate;
};

// kTokenTiles_: 0 where x is multiplied as digits (device/small_linear_digits.cuh).
template <int kBits_, int kTiles_, int kTokenTiles_, int kGroups_, bool kPair_, int kStages_>
struct Shape {
  static constexpr int kBits = kBits_;  // of a code
  // Tiles of 16 rows in a task: neighbours, or half of them of each of a pair.
  static constexpr int kTiles = kTiles_;
  static constexpr int kParts = kPair_ ? 2 : 1;
  static constexpr int kTilesOfPart = kTiles / kParts;
  static constexpr bool kDigits = kTokenTiles_ == 0;
  static constexpr int kTokenTiles = kDigits ? 1 : kTokenTiles_;  // of 8 columns of operand B
  static constexpr int kGroups = kGroups_;                        // in a chunk
  static constexpr int kDigitRowBytes = digit_row_bytes(kGroups);
  static constexpr bool kPair = kPair_;
  static constexpr int kStages = kStages_;  // of a warp's ring, unless it has fewer chunks
  static constexpr int kLoads = kBits / 4;  // of 16 rows x 64 columns
  static constexpr int kTileBytes = kLoads * kLoadBytes;
  static constexpr int kCodeBytes = kTiles * 2 * kTileBytes;
  static constexpr int kPieces = kTiles * kGroups * 3;  // 16 bytes each of scales and zero points
  static constexpr int kStageBytes = kCodeBytes + kPieces * 16;
  static constexpr int kCells = cells_of(kTiles, kTokenTiles_);             // of a task
  static constexpr int kResults = kPair && !kDigits ? kCells / 2 : kCells;  // after pairing
  static_assert(kPieces <= 32);
};

// Where sums come together, for the tasks that a block owns.
__host__ __device__ constexpr int exchange_bytes(int cells, int slices, int splits) {
  const int places = kWarps / splits;  // tasks at a time
  return slices * splits == 1
             ? 0
             : (places + slices - 1) / slices * slices * splits * cells * kCellBytes;
}

// A tile of a task: its part, and its number there.
struct Place {
  int part;
  int tile;
};

template <class S>
__device__ __forceinline__ Place place_of(const Arguments& args, int task, int tile) {
  if (S::kPair) {
    return {tile / S::kTilesOfPart, task * S::kTilesOfPart + tile % S::kTilesOfPart};
  }
  int part = 0;
  while (part + 1 < args.part_count && task >= args.parts[part + 1].first_task) ++part;
  return {part, (task - args.parts[part].first_task) * S::kTiles + tile};
}

// What a block works on.
struct Range {
  int rank;  // in the cluster
  int first_task, end_task;
  int first_chunk, chunks;
};

__device__ __forceinline__ Range range_of(const Arguments& args) {
  const int slices = args.slices;
  const int rank = static_cast<int>(blockIdx.x) % slices;
  const int index = static_cast<int>(blockIdx.x) / slices;
  const int clusters = static_cast<int>(gridDim.x) / slices;
  const int chunks = (args.units + 1) / 2;
  const auto share = [](int count, int i, int of) {
    return static_cast<int>(static_cast<std::int64_t>(count) * i / of);
  };
  const int first_chunk = share(chunks, rank, slices);
  return {rank, share(args.tasks, index, clusters), share(args.tasks, index + 1, clusters),
          first_chunk, share(chunks, rank + 1, slices) - first_chunk};
}

template <class S>
using Sums = float[S::kTiles][S::kTokenTiles][4];

}  // namespace nibble::cuda::small
