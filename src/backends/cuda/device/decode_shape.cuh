// Sizes of the decode kernel for one kind of cache and head.
#pragma once

#include "backends/cuda/device/kv_pieces.cuh"

namespace nibble::cuda {

inline constexpr int kDecodeWarps = 4;
inline constexpr int kMostDecodeKeys = 32;       // of a warp's step
inline constexpr int kSmBytes = 228 * 1024;      // shared memory of a multiprocessor (Hopper)
inline constexpr int kBlockOverhead = 2 * 1024;  // what a block takes besides its queues

// kDim: head_dim rounded up to 64, 128 or 256. kRowTiles: query rows of a block, in eights.
//
// A warp takes kKeys keys a step, through a queue of steps of its own in shared memory.
template <KvType kType, int kDim, int kRowTiles>
struct DecodeShape {
  using Traits = KvTraits<kType>;
  using Pairs = typename Traits::Pairs;
  static constexpr int kRows = 8 * kRowTiles;
  static constexpr int kSubtiles = Traits::kCodes ? 2 : 1;  // of 16 keys
  static constexpr int kKeys = 16 * kSubtiles;
  static_assert(kMostDecodeKeys % kKeys == 0);

  // A row is cut into pieces that the 4 (keys) or 8 (values) lanes of a row take in turn.
  static constexpr int kRowBytes = kDim * Traits::kBits / 8;  // without the header
  static constexpr int kKeyBytes = Traits::kPieceBytes;       // also what is copied at a time
  static constexpr int kRowPieces = kRowBytes / kKeyBytes;
  static constexpr int kKeyPieces = kRowPieces / 4;
  static constexpr int kKeyElements = kKeyBytes * 8 / Traits::kBits;
  static constexpr int kValueBytes =
      kRowBytes >= 8 * Traits::kPieceBytes ? Traits::kPieceBytes : kRowBytes / 8;
  static constexpr int kValuePieces = kRowBytes / (8 * kValueBytes);
  static constexpr int kValueElements = kValueBytes * 8 / Traits::kBits;

  // A step of a warp in shared memory: keys, then values. Integer rows lie there as in the cache.
  // Of others piece p of row r lies at place p ^ swizzle, so that lanes that read together, those
  // of two rows of keys and those of rows 2c (c < 4) of values, read from different banks.
  static constexpr int kPitch = Traits::kHeader + kRowBytes;
  static constexpr int kValuesAt = kKeys * kPitch;
  static constexpr int kStepBytes = 2 * kKeys * kPitch;
  __host__ __device__ static constexpr int key_place(int row, int piece) {
    const int swizzle = Traits::kCodes ? 0 : row % 2 * 4;
    return row * kPitch + Traits::kHeader + (piece ^ swizzle) * kKeyBytes;
  }
  __host__ __device__ static constexpr int value_place(int row, int piece) {
    const int swizzle = Traits::kCodes ? 0 : row / 2 % 4 * 2;
    return kValuesAt + row * kPitch + Traits::kHeader + (piece ^ swizzle) * kValueBytes;
  }

  // The piece of a row that lane c (of 4, keys) or g (of 8, values) takes n-th. In rows of 128
  // codes of 8 bits, 34 words apart, those of half a warp lie in banks of their own.
  static constexpr bool kBytesOf128 = Traits::kCodes && kRowPieces == 16;
  __host__ __device__ static constexpr int key_piece(int n, int c) {
    return kBytesOf128 ? kKeyPieces * c + n : 4 * n + c;
  }
  __host__ __device__ static constexpr int value_piece(int n, int g) {
    return kBytesOf128 ? 4 * n + g % 2 + g / 2 % 2 * 8 + g / 4 * 2 : 8 * n + g;
  }

  // Rows of kInt4 take most instructions for their bytes, those of kFp8 next, and so more warps.
  static constexpr int kWantedBlocks = kType == KvType::kInt4 ? 4 : kType == KvType::kFp8 ? 3 : 2;
  static constexpr int kBlocks = kRowTiles > 1 || kDim > 128 ? 2 : kWantedBlocks;  // registers
  static constexpr int kRoomForSteps =
      (kSmBytes / kBlocks - kBlockOverhead) / (kDecodeWarps * kStepBytes);
  static constexpr int kSteps = kRoomForSteps < 2 ? 2 : kRoomForSteps > 5 ? 5 : kRoomForSteps;
  // What the warps hand over at the end: sums, largest score and weight of each row.
  static constexpr int kResultFloats = kRows * (kDim + 2);
  static constexpr int kQueueBytes = kDecodeWarps * kSteps * kStepBytes;
  static constexpr int kResultBytes = kDecodeWarps * kResultFloats * 4;
  static constexpr int kSharedBytes = kQueueBytes > kResultBytes ? kQueueBytes : kResultBytes;
  static constexpr int kBlocksPerSm =
      kSmBytes / (kSharedBytes + kBlockOverhead) < kBlocks ? 1 : kBlocks;
};

}  // namespace nibble::cuda
