// GPT-OSS: a mixture of experts in every layer, attention with sinks and a window in every other
// layer. The experts of a layer stand in one tensor, often in MXFP4.
#include "base/error.h"
#include "model/arch_common.h"

namespace nibble {
namespace {

// The gate's activation is x * sigmoid(1.702 x); another factor would be another activation.
void read_activation_limits(const ConfigReader& config, MlpSpec& mlp) {
  constexpr double kAlpha = 1.702;
  const double alpha = config.number_or({"swiglu_alpha"}, 0, 1e6, kAlpha);
  if (alpha != kAlpha) {
    fail(ErrorKind::kUnsupported, "{}: swiglu_alpha {}", config.where(), alpha);
  }
  mlp.activation = Activation::kGeluQuick;
  mlp.limit = static_cast<float>(config.number_or({"swiglu_limit"}, 1e-6, 1e15, 7));
  mlp.up_offset = 1;
}

}  // namespace

ModelSpec build_gpt_oss(const Json& json) {
  Json with_rope = json;
  if (!json.contains("rope_scaling") && !json.contains("rope_parameters")) {
    with_rope["rope_scaling"] = {{"rope_type", "yarn"},
                                 {"factor", 32.0},
                                 {"truncate", false},
                                 {"original_max_position_embeddings", 4096}};
  }
  const ConfigReader config(with_rope);
  ModelSpec spec = llama_like(
      config, "gpt_oss", {.rope_theta = 150000, .norm_eps = 1e-5, .head_dim = 64, .kv_heads = 8});
  AttentionSpec& attention = spec.attention;
  attention.qkv_bias = attention.o_bias = config.flag_or({"attention_bias"}, true);
  attention.sinks = true;
  attention.windows = layer_windows(config, spec.layers, read_window(config, 128),
                                    [](std::int64_t layer) { return layer % 2 == 0; });

  MlpSpec& mlp = spec.mlp;
  read_experts(config, {"num_local_experts", "num_experts"}, 128, 4, mlp);
  read_activation_limits(config, mlp);
  mlp.bias = mlp.router_bias = true;
  mlp.alternating_gate_up = true;
  mlp.transposed_experts = true;

  name_experts(spec.names);
  spec.names.router = "layers.{}.mlp.router";
  spec.names.sinks = "layers.{}.self_attn.sinks";
  return spec;
}

}  // namespace nibble
