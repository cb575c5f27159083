// One forward pass of a model over a text under several roundings of its weights at once.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/model.h"
#include "study/data_types.h"

namespace nibble {

struct ScalingScores {
  double mean_nll = 0;    // nats
  double stderr_nll = 0;  // of that mean
  double mean_kl = 0;     // KL(as stored || rounded), nats
  double top1_agreement = 0;
};

// Not thread-safe. Memory: one block in float32, twice, and the hidden states of the text for
// every rounding of a batch.
class ScalingPass {
 public:
  // Windows of `context` tokens, or one of a shorter text. Errors as study_scaling(). What is
  // given must outlive the object.
  ScalingPass(const ModelSpec& spec, const WeightSource& source, std::span<const std::int32_t> ids,
              std::int64_t context, Backend& backend);

  std::span<const std::int32_t> ids() const { return ids_; }  // whole windows
  std::int64_t context() const { return context_; }

  // One result a rounding, in order.
  std::vector<ScalingScores> run(std::span<const WeightRounding> roundings);

 private:
  // Levels of quantile types by module and bits.
  using QuantileLevels = std::map<std::pair<std::string, int>, Levels>;

  void run_reference();
  void run_layer_for_all(std::int64_t layer, std::span<const WeightRounding> roundings,
                         float* hidden);
  QuantileLevels quantile_levels_of(LayerWeights& weights,
                                    std::span<const WeightRounding> roundings);
  void round_linear(const WeightRounding& rounding, const QuantileLevels& levels, Linear& linear);
  std::vector<ScalingScores> compare_outputs(const float* hidden, std::size_t candidates);

  const ModelSpec& spec_;
  const WeightSource& source_;
  std::span<const std::int32_t> ids_;
  std::int64_t context_;
  Backend& backend_;
  EmbeddingWeights embedding_;
  HeadWeights head_;
  Tensor reference_;  // hidden states of the model as it is; empty before the first run
};

}  // namespace nibble
