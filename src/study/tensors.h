// Values of a model's tensors for studies: weights block by block, activations on a text.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/model.h"
#include "quantize/calibrators/histogram.h"

namespace nibble {

struct TensorSample {
  static constexpr std::int64_t kMostValues = std::int64_t{1} << 18;

  std::string name;   // "model.layers.0.mlp.down_proj", "layers.0.attn_in"
  std::string group;  // "down_proj", "attn_in"
  // Whole rows at equal distances, at most kMostValues or one row, [rows, cols].
  std::vector<float> values;
  std::int64_t cols = 0;
  Histogram histogram;  // of every value; a window of a text is one batch
};

// The tensors of one block; blocks come in order.
using TensorSink = std::function<void(std::vector<TensorSample> samples)>;

// Every linear of every block, decoded.
void sample_weights(const ModelSpec& spec, const WeightSource& source, Backend& backend,
                    const TensorSink& sink);

// The input of every linear of every block, over windows of `context` tokens (the rest of the ids
// is left out). The backend's memory must be the host's. kUsage when there are no ids.
void sample_activations(const ModelSpec& spec, const WeightSource& source, Backend& backend,
                        std::span<const std::int32_t> ids, std::int64_t context,
                        const TensorSink& sink);

}  // namespace nibble
