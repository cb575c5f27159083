// A text through a model block by block, one block in memory at a time, for what looks at the
// inputs of the linear layers.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "model/model.h"

namespace nibble {

// Runs on the CPU. Not thread-safe.
class LayerWalk {
 public:
  // Windows of `context` tokens (or the whole text, when it is shorter); what is left over is not
  // used. kUsage when there are no ids; `purpose` says what the text was for ("to study ... on").
  LayerWalk(const ModelSpec& spec, const WeightSource& source, Backend& backend,
            std::span<const std::int32_t> ids, std::int64_t context, const std::string& purpose);

  std::int64_t rows() const { return batch_.rows(); }  // of all windows
  std::int64_t window() const { return window_; }      // rows of one
  // The next block; the first call runs block 0.
  void run_next(SiteObserver& observer);
  // The same with other weights than those of the source.
  void run_next(const LayerWeights& weights, SiteObserver& observer);
  // After the last block that ran, [rows, spec.hidden].
  std::span<const float> hidden() const {
    return {hidden_.data<float>(), static_cast<std::size_t>(hidden_.elements())};
  }

 private:
  const ModelSpec& spec_;
  const WeightSource& source_;
  Backend& backend_;
  std::int64_t window_;
  Batch batch_;
  Tensor hidden_;
  std::int64_t layer_ = 0;
};

}  // namespace nibble
