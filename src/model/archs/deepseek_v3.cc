// DeepSeek-V3 and R1, and Kimi K2, which is stored as they are: latent attention, and a mixture of
// experts in groups beside one for every token in all but the first layers. Modules that predict
// more tokens (num_nextn_predict_layers) are not run.
#include <cmath>

#include "base/error.h"
#include "model/arch_common.h"

namespace nibble {
namespace {

// Yarn's factor on scores, which here is no factor on the rotated parts alone.
double score_scale(const RopeSpec& rope) {
  const double all_dim = rope.mscale_all_dim.value_or(0);
  if (rope.kind == RopeKind::kDefault || all_dim == 0 || rope.factor <= 1) return 1;
  const double m = 0.1 * all_dim * std::log(rope.factor) + 1;
  return m * m;
}

LatentSpec read_latent(const ConfigReader& config) {
  LatentSpec latent;
  latent.norm.eps = 1e-6f;  // whatever rms_norm_eps says
  const bool direct = config.is_null("q_lora_rank");
  latent.q_rank = direct ? 0 : config.integer_or({"q_lora_rank"}, 1, kMaxHidden, 1536);
  latent.kv_rank = config.integer_or({"kv_lora_rank"}, 1, kMaxHidden, 512);
  latent.nope_dim = config.integer_or({"qk_nope_head_dim"}, 1, kMaxHeadDim, 128);
  latent.rope_dim = config.integer_or({"qk_rope_head_dim"}, 2, kMaxHeadDim, 64);
  latent.value_dim = config.integer_or({"v_head_dim"}, 1, kMaxHeadDim, 128);
  if (latent.value_dim > latent.nope_dim + latent.rope_dim) {
    fail(ErrorKind::kUnsupported, "{}: values of {} elements are longer than keys of {}",
         config.where(), latent.value_dim, latent.nope_dim + latent.rope_dim);
  }
  return latent;
}

void read_attention(const ConfigReader& config, AttentionSpec& attention) {
  const LatentSpec latent = read_latent(config);
  attention.layout = QkvLayout::kLatent;
  attention.latent = latent;
  attention.head_dim = latent.nope_dim + latent.rope_dim;
  attention.kv_heads = attention.heads;
  attention.rope->interleaved = config.flag_or({"rope_interleave"}, true);
  attention.scale = static_cast<float>(score_scale(*attention.rope) /
                                       std::sqrt(static_cast<double>(attention.head_dim)));
  attention.qkv_bias = attention.o_bias = config.flag_or({"attention_bias"}, false);
}

void require_text(const ConfigReader& config, const char* key, const std::string& known) {
  const std::string value = config.text_or({key}, known);
  if (value != known) fail(ErrorKind::kUnsupported, "{}: {} '{}'", config.where(), key, value);
}

void read_mixture(const ConfigReader& config, std::int64_t layers, MlpSpec& mlp) {
  require_text(config, "scoring_func", "sigmoid");
  require_text(config, "topk_method", "noaux_tc");
  if (config.integer_or({"moe_layer_freq"}, 1, kMaxLayers, 1) != 1) {
    fail(ErrorKind::kUnsupported, "{}: moe_layer_freq is not 1", config.where());
  }
  mlp.dense_intermediate = mlp.intermediate;
  mlp.intermediate = config.integer_or({"moe_intermediate_size"}, 1, kMaxIntermediate, 2048);
  read_experts(config, {"n_routed_experts", "num_local_experts"}, 256, 8, mlp);
  mlp.score = RouteScore::kSigmoid;
  mlp.choice_bias = true;
  mlp.renormalize = config.flag_or({"norm_topk_prob"}, true);
  mlp.route_scale = static_cast<float>(config.number_or({"routed_scaling_factor"}, 1e-6, 1e6, 2.5));
  mlp.groups = config.is_null("n_group") ? 1 : config.integer_or({"n_group"}, 1, kMaxExperts, 8);
  mlp.top_groups =
      config.is_null("topk_group") ? 1 : config.integer_or({"topk_group"}, 1, kMaxExperts, 4);
  if (mlp.experts % mlp.groups != 0 || mlp.top_groups > mlp.groups ||
      mlp.top_k > mlp.experts / mlp.groups * mlp.top_groups) {
    fail(ErrorKind::kCorrupt, "{}: {} of {} experts cannot be found in {} of {} groups",
         config.where(), mlp.top_k, mlp.experts, mlp.top_groups, mlp.groups);
  }
  mlp.shared_intermediate =
      mlp.intermediate * config.integer_or({"n_shared_experts"}, 0, kMaxExperts, 1);
  const std::int64_t dense = config.integer_or({"first_k_dense_replace"}, 0, kMaxLayers, 3);
  for (std::int64_t layer = 0; layer < layers; ++layer) mlp.dense_layers.push_back(layer < dense);
}

}  // namespace

ModelSpec build_deepseek_v3(const Json& json) {
  Json rotated = json;  // head_dim is what is rotated, as newer files say
  rotated["head_dim"] = ConfigReader(json).integer_or({"qk_rope_head_dim"}, 2, kMaxHeadDim, 64);
  const ConfigReader config(rotated);
  ModelSpec spec = llama_like(config, "deepseek_v3");
  read_attention(config, spec.attention);
  read_mixture(config, spec.layers, spec.mlp);

  NameSpec& names = spec.names;
  name_experts(names);
  names.router_choice_bias = "layers.{}.mlp.gate.e_score_correction_bias";
  names.shared_gate = "layers.{}.mlp.shared_experts.gate_proj";
  names.shared_up = "layers.{}.mlp.shared_experts.up_proj";
  names.shared_down = "layers.{}.mlp.shared_experts.down_proj";
  names.q_a = "layers.{}.self_attn.q_a_proj";
  names.q_a_norm = "layers.{}.self_attn.q_a_layernorm";
  if (spec.attention.latent->q_rank > 0) names.q = "layers.{}.self_attn.q_b_proj";
  names.kv_a = "layers.{}.self_attn.kv_a_proj_with_mqa";
  names.kv_a_norm = "layers.{}.self_attn.kv_a_layernorm";
  names.kv_b = "layers.{}.self_attn.kv_b_proj";
  names.k = names.v = "";
  return spec;
}

}  // namespace nibble
