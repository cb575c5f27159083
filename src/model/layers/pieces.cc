#include "model/layers/pieces.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {
KvFormat kv_format(const Batch::Sequence& sequence) {
  return sequence.cache == nullptr ? KvType::kF32 : sequence.cache->format();
}

std::vector<Piece> cut_into_pieces(const Batch& batch, bool causal) {
  std::vector<Piece> pieces;
  std::int64_t row = 0;
  KvFormat format;
  for (std::size_t i = 0; i < batch.sequences.size(); ++i) {
    const Batch::Sequence& sequence = batch.sequences[i];
    const bool cut = causal && sequence.rows > kPieceRows;
    std::int64_t offset = 0;
    while (offset < sequence.rows) {
      const std::int64_t rows = cut ? std::min(kPieceRows, sequence.rows - offset) : sequence.rows;
      if (pieces.empty() || format != kv_format(sequence) ||
          pieces.back().rows + rows > kPieceRows) {
        pieces.push_back({row, 0, {}});
        format = kv_format(sequence);
      }
      Piece& piece = pieces.back();
      piece.segments.push_back({i, offset, rows, piece.rows, !cut});
      piece.rows += rows;
      offset += rows;
      row += rows;
    }
  }
  return pieces;
}

void check_batch(const ModelSpec& spec, const Batch& batch) {
  std::int64_t rows = 0;
  for (const Batch::Sequence& sequence : batch.sequences) {
    if (sequence.rows < 0 || sequence.first_position < 0) {
      fail(ErrorKind::kUsage, "a sequence of {} rows from position {}", sequence.rows,
           sequence.first_position);
    }
    rows += sequence.rows;
    const KvCache* cache = sequence.cache;
    if (cache == nullptr) {
      if (sequence.first_position != 0) {
        fail(ErrorKind::kUsage, "a sequence from position {} needs a cache of what came before",
             sequence.first_position);
      }
      continue;
    }
    if (!spec.decoder) fail(ErrorKind::kUsage, "an encoder takes no cache");
    if (sequence.first_position != cache->size()) {
      fail(ErrorKind::kUsage, "a sequence continues at position {}, but its cache holds {} tokens",
           sequence.first_position, cache->size());
    }
    if (sequence.rows > cache->capacity() - cache->size()) {
      fail(ErrorKind::kUsage, "{} tokens do not fit into a cache that holds {} of {}",
           sequence.rows, cache->size(), cache->capacity());
    }
  }
  if (rows != batch.rows()) {
    fail(ErrorKind::kUsage, "a batch has {} ids, but its sequences {} rows", batch.rows(), rows);
  }
}

}  // namespace nibble
