// Qwen3 with a mixture of experts in its layers, or in all but some.
#include <algorithm>

#include "base/error.h"
#include "model/arch_common.h"

namespace nibble {
namespace {

// "mlp_only_layers" lists layers without experts; of the others every decoder_sparse_step-th has
// them.
std::vector<bool> dense_layers(const ConfigReader& config, std::int64_t layers) {
  const std::int64_t step = config.integer_or({"decoder_sparse_step"}, 1, kMaxLayers, 1);
  std::vector<double> listed;
  if (config.has("mlp_only_layers")) listed = config.numbers("mlp_only_layers", 0, kMaxLayers);
  std::vector<bool> dense;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const bool is_listed = std::ranges::find(listed, static_cast<double>(layer)) != listed.end();
    dense.push_back(is_listed || (layer + 1) % step != 0);
  }
  return dense;
}

}  // namespace

ModelSpec build_qwen3_moe(const Json& json) {
  const ConfigReader config(json);
  ModelSpec spec = llama_like(config, "qwen3_moe", {.kv_heads = 4});
  AttentionSpec& attention = spec.attention;
  attention.qkv_bias = attention.o_bias = config.flag_or({"attention_bias"}, false);
  attention.qk_norm = spec.norm;
  if (config.flag_or({"use_sliding_window"}, false)) {
    attention.windows.assign(static_cast<std::size_t>(spec.layers), read_window(config, 4096));
  }

  MlpSpec& mlp = spec.mlp;
  mlp.dense_intermediate = mlp.intermediate;
  mlp.intermediate = config.integer_or({"moe_intermediate_size"}, 1, kMaxIntermediate, 768);
  read_experts(config, {"num_experts", "num_local_experts"}, 128, 8, mlp);
  mlp.renormalize = config.flag_or({"norm_topk_prob"}, false);
  mlp.dense_layers = dense_layers(config, spec.layers);

  spec.names.q_norm = "layers.{}.self_attn.q_norm";
  spec.names.k_norm = "layers.{}.self_attn.k_norm";
  name_experts(spec.names);
  return spec;
}

}  // namespace nibble
