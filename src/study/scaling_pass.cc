#include "study/scaling_pass.h"

#include <algorithm>
#include <limits>
#include <set>

#include "base/error.h"
#include "eval/chunks.h"
#include "eval/divergence_sums.h"
#include "quantize/block.h"
#include "quantize/calibration.h"

namespace nibble {
namespace {

std::span<float> values_of(Linear& linear) {
  Tensor& values = linear.weight.canonical.planes[0];
  return {values.mutable_data<float>(), static_cast<std::size_t>(values.elements())};
}

}  // namespace

ScalingPass::ScalingPass(const ModelSpec& spec, const WeightSource& source,
                         std::span<const std::int32_t> ids, std::int64_t context, Backend& backend)
    : spec_(spec), source_(source), backend_(backend) {
  if (!spec.decoder) {
    fail(ErrorKind::kUnsupported, "study: {} is an encoder, it does not predict the next token",
         spec.arch);
  }
  const auto size = static_cast<std::int64_t>(ids.size());
  context_ = std::min(context, size);
  if (context_ < 2) {
    fail(ErrorKind::kUsage, "study: a text of {} tokens in windows of {} has nothing to predict",
         size, context);
  }
  ids_ = ids.first(static_cast<std::size_t>(size / context_ * context_));
  embedding_ = load_embedding(spec, source, backend);
  head_ = load_head(spec, embedding_, source, backend);
}

std::vector<ScalingScores> ScalingPass::run(std::span<const WeightRounding> roundings) {
  if (reference_.empty()) run_reference();
  const std::int64_t size = static_cast<std::int64_t>(ids_.size()) * spec_.hidden;
  Tensor hidden =
      Tensor::allocate(DType::kF32, {static_cast<std::int64_t>(roundings.size()) * size});
  float* const states = hidden.mutable_data<float>();
  embed_windows(spec_, embedding_, ids_, context_, backend_, states);
  for (std::size_t i = 1; i < roundings.size(); ++i) {
    std::copy_n(states, size, states + static_cast<std::int64_t>(i) * size);
  }
  for (std::int64_t layer = 0; layer < spec_.layers; ++layer) {
    run_layer_for_all(layer, roundings, states);
  }
  return compare_outputs(states, roundings.size());
}

void ScalingPass::run_reference() {
  Tensor hidden =
      Tensor::allocate(DType::kF32, {static_cast<std::int64_t>(ids_.size()), spec_.hidden});
  float* const states = hidden.mutable_data<float>();
  embed_windows(spec_, embedding_, ids_, context_, backend_, states);
  for (std::int64_t layer = 0; layer < spec_.layers; ++layer) {
    const LayerWeights weights = load_layer_f32(spec_, layer, source_, backend_);
    run_windows(spec_, layer, weights, ids_, context_, backend_, states);
  }
  reference_ = std::move(hidden);
}

void ScalingPass::run_layer_for_all(std::int64_t layer, std::span<const WeightRounding> roundings,
                                    float* hidden) {
  LayerWeights original = load_layer_f32(spec_, layer, source_, backend_);
  check_finite(original, backend_.pool());
  const QuantileLevels levels = quantile_levels_of(original, roundings);
  for (const WeightRounding& rounding : roundings) {
    LayerWeights weights = clone_layer(original, backend_.pool());
    for (Linear* linear : weights.linears()) round_linear(rounding, levels, *linear);
    prepare_layer(weights, backend_);
    run_windows(spec_, layer, weights, ids_, context_, backend_, hidden);
    hidden += static_cast<std::int64_t>(ids_.size()) * spec_.hidden;
  }
}

ScalingPass::QuantileLevels ScalingPass::quantile_levels_of(
    LayerWeights& weights, std::span<const WeightRounding> roundings) {
  std::set<int> bits;
  for (const WeightRounding& rounding : roundings) {
    if (rounding.type == DataType::kQuantile) bits.insert(rounding.bits);
  }
  if (bits.empty()) return {};
  const std::vector<Linear*> linears = weights.linears();
  std::vector<std::vector<Levels>> found(linears.size());
  backend_.pool().parallel_for(
      static_cast<std::int64_t>(linears.size()), 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
          const auto values = values_of(*linears[i]);
          std::vector<float> sorted(values.begin(), values.end());
          std::ranges::sort(sorted);
          for (const int b : bits) found[i].push_back(quantile_levels(sorted, b));
        }
      });
  QuantileLevels result;
  for (std::size_t i = 0; i < linears.size(); ++i) {
    std::size_t at = 0;
    for (const int b : bits) result[{linears[i]->module, b}] = std::move(found[i][at++]);
  }
  return result;
}

void ScalingPass::round_linear(const WeightRounding& rounding, const QuantileLevels& levels,
                               Linear& linear) {
  const std::span<float> values = values_of(linear);
  if (rounding.type == DataType::kSixteenBit) return round_to_16_bits(values);
  const std::int64_t block = rounding.block == 0 ? linear.weight.canonical.cols : rounding.block;
  if (rounding.type == DataType::kQuantile) {
    round_blocks(levels.at({linear.module, rounding.bits}), block, values, backend_.pool());
  } else {
    round_blocks(levels_of(rounding), block, values, backend_.pool());
  }
}

std::vector<ScalingScores> ScalingPass::compare_outputs(const float* hidden,
                                                        std::size_t candidates) {
  const auto tokens = static_cast<std::int64_t>(ids_.size());
  // Whole windows, so that each row's target is in the same piece.
  const std::int64_t step = std::max(head_rows(spec_.vocab) / context_, std::int64_t{1}) * context_;
  const auto size = static_cast<std::size_t>(std::min(step, tokens) * spec_.vocab);
  std::vector<float> reference(size), rounded(size);
  std::vector<DivergenceSums> sums(candidates);
  for (std::int64_t begin = 0; begin < tokens; begin += step) {
    const std::int64_t count = std::min(step, tokens - begin);
    run_head(spec_, head_, reference_.data<float>() + begin * spec_.hidden, count, backend_,
             reference.data());
    for (std::size_t c = 0; c < candidates; ++c) {
      const float* states = hidden + (static_cast<std::int64_t>(c) * tokens + begin) * spec_.hidden;
      run_head(spec_, head_, states, count, backend_, rounded.data());
      for (std::int64_t w = 0; w < count; w += context_) {
        const auto targets = ids_.subspan(static_cast<std::size_t>(begin + w + 1),
                                          static_cast<std::size_t>(context_ - 1));
        sums[c].add(rounded.data() + w * spec_.vocab, reference.data() + w * spec_.vocab, targets,
                    spec_.vocab, backend_.pool());
      }
    }
  }
  std::vector<ScalingScores> scores;
  for (DivergenceSums& sum : sums) {
    const DivergenceResult result = sum.result(tokens);
    // A model that breaks says NaN as its perplexity; its loss over the rest would flatter it.
    const bool broken = result.model.nan > 0;
    const double nan = std::numeric_limits<double>::quiet_NaN();
    scores.push_back({broken ? nan : result.model.mean_nll, result.model.stderr_nll,
                      broken ? nan : result.mean_kl, result.top1_agreement});
  }
  return scores;
}

}  // namespace nibble
