// A batch cut into pieces of bounded size, so that buffers are bounded whatever the batch.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model.h"

namespace nibble {

// Rows of a piece beyond which a new one begins (a sequence that cannot be cut may be longer).
inline constexpr std::int64_t kPieceRows = 2048;

// Consecutive rows of one sequence.
struct SequencePart {
  std::size_t sequence = 0;  // index in Batch::sequences
  std::int64_t offset = 0;   // of the first row within the sequence
  std::int64_t rows = 0;
  std::int64_t begin = 0;  // of the first row within the piece
  bool whole = true;       // the sequence is not cut
};

// Consecutive rows of the batch. All segments have keys and values of one type.
struct Piece {
  std::int64_t begin = 0;
  std::int64_t rows = 0;
  std::vector<SequencePart> segments;
};

// The format that a sequence's keys and values are read in: its cache's, or F32, as they are
// computed and as the scratch of a cut sequence holds them.
KvFormat kv_format(const Batch::Sequence& sequence);

// A causal sequence longer than kPieceRows is cut: its later rows find the keys and values of the
// earlier ones in a cache. One that sees both ways is never cut.
std::vector<Piece> cut_into_pieces(const Batch& batch, bool causal);

// kUsage when the sequences do not add up to the ids, or do not continue what their caches hold.
void check_batch(const ModelSpec& spec, const Batch& batch);

}  // namespace nibble
