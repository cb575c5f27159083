// Biases of 0 for linear layers that have none, where a key of the config says that they may: room
// for what is put into biases later. The model computes the same.
#include <algorithm>
#include <string>

#include "base/error.h"
#include "model/arch.h"
#include "quantize/algorithm.h"
#include "quantize/rewritten_checkpoint.h"

namespace nibble {
namespace {

// Keys by which configs say that linear layers have biases.
constexpr const char* kBiasKeys[] = {"attention_bias", "mlp_bias"};

// The linears of a layer that get a bias when the config changes from one model to the other.
std::vector<const Linear*> given_biases(const ModelSpec& before, const ModelSpec& after,
                                        const LayerWeights& weights) {
  std::vector<const Linear*> given;
  const auto add = [&](bool had, bool has, std::initializer_list<const Linear*> linears) {
    if (had || !has) return;
    std::ranges::copy_if(linears, std::back_inserter(given), &Linear::exists);
  };
  add(before.attention.qkv_bias, after.attention.qkv_bias,
      {&weights.q, &weights.k, &weights.v, &weights.qkv});
  add(before.attention.o_bias, after.attention.o_bias, {&weights.o});
  const MlpWeights& mlp = weights.mlp;
  add(before.mlp.bias, after.mlp.bias, {&mlp.gate, &mlp.up, &mlp.gate_up, &mlp.down});
  return given;
}

// The config that gives the most layers biases. Of the matrices of latent attention and of experts
// these keys mean only some, so such a model keeps its config.
Json with_biases(const Json& config, const ModelSpec& spec) {
  Json result = config;
  if (spec.attention.latent || spec.mlp.experts > 0) return result;
  for (const char* key : kBiasKeys) {
    Json changed = config;
    changed[key] = true;
    const ModelSpec with = build_spec(changed);
    const bool counts = with.attention.qkv_bias != spec.attention.qkv_bias ||
                        with.attention.o_bias != spec.attention.o_bias ||
                        with.mlp.bias != spec.mlp.bias;
    if (counts) result[key] = true;
  }
  return result;
}

std::unique_ptr<Checkpoint> rewrite(RewriteSource source, const Parameters&) {
  const Checkpoint& checkpoint = *source.checkpoint;
  const ModelSpec before = build_spec(checkpoint.config());
  Rewrite changes;
  changes.config = with_biases(checkpoint.config(), before);
  const ModelSpec after = build_spec(changes.config);
  std::size_t bytes = 0;
  for (std::int64_t layer = 0; layer < before.layers; ++layer) {
    const LayerWeights weights = load_layer(before, layer, checkpoint, source.backend);
    for (const Linear* linear : given_biases(before, after, weights)) {
      const QuantTensor& w = linear->weight.canonical;
      if (!w.format->is_float()) continue;  // which is refused when it is planned
      const std::vector<float> zeros(static_cast<std::size_t>(w.rows), 0.0f);
      Tensor bias = from_float(zeros.data(), w.format->descriptor().element.float_type, {w.rows});
      bytes += bias.byte_size();
      changes.tensors[linear->module + ".bias"] = std::move(bias);
    }
  }
  if (changes.tensors.empty()) {
    source.notes.push_back(fmt::format(
        "no linear layer is given a bias: the config of this {} has no key for it", before.arch));
    return std::move(source.checkpoint);
  }
  source.notes.push_back(fmt::format("{} linear layers are given a bias, which takes {} bytes more",
                                     changes.tensors.size(), bytes));
  return std::make_unique<RewrittenCheckpoint>(std::move(source.checkpoint), before,
                                               std::move(changes), source.backend);
}

}  // namespace

Algorithm make_add_biases() {
  Algorithm algorithm;
  algorithm.name = "add_biases";
  algorithm.summary = "give linear layers biases of 0, where the config has a key for it";
  algorithm.kind = StepKind::kRewrite;
  algorithm.needs = {CalibrationNeed::kNone, Scope::kModel};
  algorithm.rewrite = rewrite;
  return algorithm;
}

}  // namespace nibble
