// Calibration text as windows of tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/model.h"
#include "model/tokenizer/tokenizer.h"
#include "quantize/recipe.h"

namespace nibble {

struct CalibrationWindows {
  std::int64_t context = 0;              // tokens of each window
  std::vector<std::int32_t> statistics;  // whole windows, end to end
  std::vector<std::int32_t> search;      // held back from the statistics

  std::int64_t tokens() const {
    return static_cast<std::int64_t>(statistics.size() + search.size());
  }
};

// Takes windows evenly spread over the text, and every so often one of them for the search. A text
// that is too short gives fewer windows, and a shorter context when it holds less than one (two
// with a search). kUsage when it is shorter than that.
CalibrationWindows cut_windows(std::span<const std::int32_t> ids, const CalibrationOptions& options,
                               bool with_search);

// Calls body(first row, batch) for runs of whole windows whose activations fit in memory at once.
void for_each_chunk(std::span<const std::int32_t> ids, std::int64_t context,
                    const std::function<void(std::int64_t begin, const Batch& batch)>& body);

// Runs one layer over all windows in place, some windows at a time. hidden is [ids, spec.hidden].
void run_windows(const ModelSpec& spec, std::int64_t layer, const LayerWeights& weights,
                 std::span<const std::int32_t> ids, std::int64_t context, Backend& backend,
                 float* hidden, SiteObserver* observer = nullptr);
// The embedding of all windows.
void embed_windows(const ModelSpec& spec, const EmbeddingWeights& weights,
                   std::span<const std::int32_t> ids, std::int64_t context, Backend& backend,
                   float* hidden);

}  // namespace nibble
