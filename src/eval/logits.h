// Raw logits of given token ids, from file to file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "base/log.h"
#include "model/model.h"

namespace nibble {

struct IdMatrix {
  std::int64_t batch = 0, seq = 0;
  std::vector<std::int32_t> ids;  // [batch, seq]
};

// Reads an int32 or int64 .npy of shape [batch, seq], or [seq] as one sequence. kUsage for another
// rank or type, empty arrays, and ids outside [0, vocab).
IdMatrix read_ids(const std::filesystem::path& path, std::int64_t vocab);

// Writes float32 logits [batch, seq, vocab] (encoders: the last hidden state [batch, seq, hidden])
// as .npy and returns that shape. Each row of ids is a sequence of its own. The result is written
// piece by piece, beside `out`, and renamed when complete: memory does not grow with the batch or
// the vocabulary. kDisk when it does not fit or cannot be written.
Shape write_logits(const Model& model, const IdMatrix& ids, const std::filesystem::path& out,
                   const ProgressSink& progress = {});

}  // namespace nibble
