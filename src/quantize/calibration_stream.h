// The calibration text on its way through the model while its blocks are being quantized: the
// inputs of a block come from the quantized blocks before it.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "quantize/block.h"
#include "quantize/hidden_states.h"
#include "quantize/passes.h"

namespace nibble {

// What Hessians may hold beside sums of products.
struct ObservedExtras {
  // What is missing from the residual stream where linears are added to it as they are (not behind
  // a norm or a router).
  bool residual = false;
  bool samples = false;  // Hessian::samples, some thousand rows
};

// In the runner's memory are the hidden states of the text, once, or twice with the unquantized
// model's; in a pass, a layer or two, the inputs of one chunk and the Hessians asked for. Layers
// are given as they lie in the host's memory.
class CalibrationStream {
 public:
  // Takes up at `layer`, from what was saved before it.
  CalibrationStream(const Job& job, std::int64_t layer, bool with_full);

  // Hessians of the inputs of some sites of the present layer. `full`: the layer before anything
  // in it was rounded; null for no drift.
  LayerHessians observe(std::int64_t layer, const LayerWeights& weights, const LayerWeights* full,
                        const std::set<std::string>& sites, const ObservedExtras& extras = {});
  // Hidden states of the text before the present layer, [tokens, hidden], in the host's memory.
  std::vector<float> inputs() const;
  // Those after it in the unquantized model, `full` being the layer there. Needs with_full.
  std::vector<float> targets(std::int64_t layer, const LayerWeights& full) const;
  // Runs the text through the present layer and stays where it is; `unquantized`: as it is in the
  // unquantized model, `weights` being the layer there. Needs with_full.
  void watch(std::int64_t layer, const LayerWeights& weights, SiteObserver& observer,
             bool unquantized = false);
  // Runs the text through the layer as it will be stored.
  void advance(std::int64_t layer, const LayerWeights& weights, const LayerWeights* full);
  // Saves where the text is after this layer, and forgets what was saved before.
  void save(std::int64_t layer);
  // The first layer after the last one that was saved; 0 when none was.
  static std::int64_t saved(const Job& job);

 private:
  std::vector<float> to_host(const float* states) const;

  const Job& job_;
  std::int64_t rows_;  // of the text
  HiddenStates
      states_;  // [1 or 2 times rows, hidden]; the second are those in the unquantized model
};

}  // namespace nibble
