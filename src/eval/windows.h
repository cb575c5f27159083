// Cuts a text into windows and gives the logits of the counted predictions, a few rows at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "eval/perplexity.h"
#include "model/model.h"

namespace nibble {

// The windows of a text, all of the same length. In each, the row at position i predicts the token
// at i + 1; rows [first_counted, rows - 1) count.
struct WindowPlan {
  std::span<const std::int32_t> ids;
  std::int64_t rows = 0;
  std::int64_t count = 0;
  std::int64_t first_counted = 0;
  std::int32_t first_token = -1;    // replaces each window's first token unless negative
  std::optional<KvFormat> kv_type;  // of the first model's caches; none: it runs without

  std::int64_t counted_per_window() const { return rows - 1 - first_counted; }
  // Tokens of windows [begin, end), end to end.
  std::vector<std::int32_t> tokens(std::int64_t begin, std::int64_t end) const;
};

// kUsage when the text or the context is shorter than two tokens.
WindowPlan plan_windows(std::span<const std::int32_t> ids, const WindowOptions& options);

// One chunk of predictions: row r of every matrix is the same position of the text, seen by each
// model; matrices are [targets, vocab].
struct PredictionChunk {
  std::vector<const float*> logits;
  std::span<const std::int32_t> targets;
};

// Runs every model over the same windows and calls `sink` with all counted predictions, in order.
// Memory: the hidden states of some thousand rows and, per model, about 64 MB of logits. kUsage
// when the vocabularies differ, kUnsupported for encoders.
void for_each_prediction(std::span<const Model* const> models, const WindowPlan& plan,
                         const std::string& step, const ProgressSink& progress,
                         const std::function<void(const PredictionChunk&)>& sink);

}  // namespace nibble
