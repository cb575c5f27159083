// Sizes of the decode kernel for one kind of cache and head.
#pragma once

#include "backends/cuda/device/kv_pieces.cuh"

namespace nibble::cuda {

inline constexpr int kDecodeWarps = 4;

// kDim: head_dim rounded up to 64, 128 or 256. kRowTiles: query rows of a block, in eights.
//
// A warp takes kKeys keys a step. Each lane copies, to a place of its own in shared memory, just
// the pieces that it will multiply, so that a step's data is a queue without barriers; only the
// scales of integer rows are shared by lanes.
template <KvType kType, int kDim, int kRowTiles>
struct DecodeShape {
  using Traits = KvTraits<kType>;
  using Pairs = typename PairsOf<kType>::Type;
  static constexpr int kRows = 8 * kRowTiles;
  static constexpr int kSubtiles = Traits::kCodes ? 2 : 1;  // of 16 keys
  static constexpr int kKeys = 16 * kSubtiles;

  // A row is cut into pieces that the 4 (keys) or 8 (values) lanes of a row take in turn.
  static constexpr int kRowBytes = kDim * Traits::kBits / 8;  // without the header
  static constexpr int kKeyBytes = Traits::kPieceBytes;
  static constexpr int kKeyPieces = kRowBytes / (4 * kKeyBytes);
  static constexpr int kKeyElements = kKeyBytes * 8 / Traits::kBits;
  static constexpr int kValueBytes =
      kRowBytes >= 8 * Traits::kPieceBytes ? Traits::kPieceBytes : kRowBytes / 8;
  static constexpr int kValuePieces = kRowBytes / (8 * kValueBytes);
  static constexpr int kValueElements = kValueBytes * 8 / Traits::kBits;

  // A step of a warp in shared memory.
  static constexpr int kValuesAt = 2 * kKeyPieces * 32 * kKeyBytes;  // within a subtile
  static constexpr int kSubtileBytes = kValuesAt + 4 * kValuePieces * 32 * kValueBytes;
  static constexpr int kHeadersAt = kSubtiles * kSubtileBytes;  // of keys, then of values
  static constexpr int kStepBytes = kHeadersAt + 2 * kKeys * Traits::kHeader;
  static constexpr int kSteps = 104 * 1024 / (kDecodeWarps * kStepBytes) < 2
                                    ? 2
                                    : (104 * 1024 / (kDecodeWarps * kStepBytes) > 6
                                           ? 6
                                           : 104 * 1024 / (kDecodeWarps * kStepBytes));
  // What the warps hand over at the end: sums, largest score and weight of each row.
  static constexpr int kResultFloats = kRows * (kDim + 2);
  static constexpr int kQueueBytes = kDecodeWarps * kSteps * kStepBytes;
  static constexpr int kResultBytes = kDecodeWarps * kResultFloats * 4;
  static constexpr int kSharedBytes = kQueueBytes > kResultBytes ? kQueueBytes : kResultBytes;
  static constexpr int kBlocksPerSm = 227 * 1024 / (kSharedBytes + 1024);
};

}  // namespace nibble::cuda
