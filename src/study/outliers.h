// Outliers of a model's activations: channels that stand out, emergent feature dimensions
// (LLM.int8(), arXiv 2208.07339) and massive activations (arXiv 2402.17762).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "eval/outliers.h"

namespace nibble {

struct OutlierSite {
  OutlierRow row;  // layer, site, absmax, its channel, ratio to the median channel
  double kurtosis = 0;
  std::vector<float> channel_absmax;
  std::int64_t outlier_channels = 0;  // that reach 6 at least once
  double token_share = 0;             // of tokens with a channel that reaches 6
};

// A channel of the residual stream as the attention and the MLP see it (attn_in and mlp_in), when
// it reaches 6 anywhere.
struct FeatureDimension {
  std::int64_t channel = 0;
  double layer_share = 0;  // of layers in which it reaches 6
  double token_share = 0;  // of tokens at which it reaches 6 in any layer
  double absmax = 0;
  // In 25 % of the layers and at 6 % of the tokens.
  bool emergent() const { return layer_share >= 0.25 && token_share >= 0.06; }
};

// A large value in the hidden states after a block.
struct LargeActivation {
  std::int64_t layer = 0;
  std::int64_t token = 0;     // index into the ids
  std::int64_t position = 0;  // in its window
  std::int64_t channel = 0;
  double value = 0;
  double median_ratio = 0;  // |value| over the median |x| of these hidden states
  // Above 100 and 1000 times the median.
  bool massive() const { return (value > 100 || value < -100) && median_ratio >= 1000; }
};

struct OutlierStudy {
  std::vector<OutlierSite> sites;            // by layer
  std::vector<FeatureDimension> features;    // those in the most layers first
  std::vector<LargeActivation> activations;  // of each layer the tokens with the largest values
  std::vector<double> layer_absmax, layer_median;  // of |hidden states|, after each block
};

// The weights of a layer as they are to run.
using LayerLoader = std::function<LayerWeights(std::int64_t layer)>;

// Over windows of `context` tokens; the rest of the ids is left out. Memory: one block, the hidden
// states. kUsage when there are no ids.
OutlierStudy study_outliers(const ModelSpec& spec, const WeightSource& source,
                            const LayerLoader& load, std::span<const std::int32_t> ids,
                            std::int64_t context, Backend& backend);

}  // namespace nibble
