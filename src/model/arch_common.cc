#include "model/arch_common.h"

#include <array>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace nibble {
namespace {

AttentionSpec llama_attention(const ConfigReader& config, const ModelSpec& spec,
                              const LlamaDefaults& defaults) {
  AttentionSpec attention;
  attention.heads = config.integer({"num_attention_heads"}, 1, kMaxHeads);
  // An explicit null means "as many as heads" in every architecture; only absence has defaults.
  const bool same = defaults.kv_heads == 0 || config.is_null("num_key_value_heads");
  attention.kv_heads = config.integer_or({"num_key_value_heads"}, 1, kMaxHeads,
                                         same ? attention.heads : defaults.kv_heads);
  if (attention.heads % attention.kv_heads != 0) {
    fail(ErrorKind::kCorrupt, "{}: {} heads cannot share {} key-value heads", config.where(),
         attention.heads, attention.kv_heads);
  }
  if (config.has("head_dim")) {
    attention.head_dim = config.integer({"head_dim"}, 1, kMaxHeadDim);
  } else if (defaults.head_dim > 0 && !config.is_null("head_dim")) {
    attention.head_dim = defaults.head_dim;
  } else {
    attention.head_dim = even_head_dim(config, spec.hidden, attention.heads);
  }
  attention.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(attention.head_dim)));
  attention.windows.assign(static_cast<std::size_t>(spec.layers), 0);
  RopeDefaults rope;
  rope.head_dim = attention.head_dim;
  rope.max_positions = spec.max_positions;
  rope.theta = defaults.rope_theta;
  rope.partial = defaults.partial_rotary;
  rope.original_max_positions = defaults.original_max_positions;
  read_rope(config, rope, attention);
  return attention;
}

NameSpec llama_names() {
  NameSpec names;
  names.prefixes = {"model.", ""};
  names.embed = "embed_tokens";
  names.attn_norm = "layers.{}.input_layernorm";
  names.mlp_norm = "layers.{}.post_attention_layernorm";
  names.q = "layers.{}.self_attn.q_proj";
  names.k = "layers.{}.self_attn.k_proj";
  names.v = "layers.{}.self_attn.v_proj";
  names.o = "layers.{}.self_attn.o_proj";
  names.gate = "layers.{}.mlp.gate_proj";
  names.up = "layers.{}.mlp.up_proj";
  names.down = "layers.{}.mlp.down_proj";
  names.final_norm = "norm";
  names.head = {"lm_head"};
  return names;
}

}  // namespace

Activation read_activation(const ConfigReader& config, ConfigReader::Keys keys,
                           const char* fallback) {
  constexpr std::array<std::pair<const char*, Activation>, 13> kKnown = {{
      {"relu", Activation::kRelu},
      {"silu", Activation::kSilu},
      {"swish", Activation::kSilu},
      {"gelu", Activation::kGelu},
      {"gelu_python", Activation::kGelu},
      {"gelu_new", Activation::kGeluTanh},
      {"gelu_fast", Activation::kGeluTanh},
      {"gelu_accurate", Activation::kGeluTanh},
      {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"gelu_python_tanh", Activation::kGeluTanh},
      {"quick_gelu", Activation::kGeluQuick},
      {"tanh", Activation::kTanh},
      {"linear", Activation::kIdentity},
  }};
  const std::string name = config.text_or(keys, fallback);
  for (const auto& [known, activation] : kKnown) {
    if (name == known) return activation;
  }
  fail(ErrorKind::kUnsupported, "{}: '{}' is '{}', an activation that nibble does not have",
       config.where(), *keys.begin(), name);
}

void reject_flag(const ConfigReader& config, const char* key) {
  if (config.flag_or({key}, false)) {
    fail(ErrorKind::kUnsupported, "{}: '{}' is true", config.where(), key);
  }
}

std::int64_t even_head_dim(const ConfigReader& config, std::int64_t hidden, std::int64_t heads) {
  if (hidden % heads != 0) {
    fail(ErrorKind::kCorrupt, "{}: {} heads do not divide the hidden size {}", config.where(),
         heads, hidden);
  }
  return hidden / heads;
}

std::int64_t read_window(const ConfigReader& config, std::int64_t fallback) {
  if (config.is_null("sliding_window")) return 0;
  return config.integer_or({"sliding_window"}, 1, kMaxContext, fallback);
}

std::vector<std::int64_t> windows_from_types(const ConfigReader& config,
                                             const std::vector<std::string>& types,
                                             std::int64_t layers, std::int64_t window) {
  if (static_cast<std::int64_t>(types.size()) != layers) {
    fail(ErrorKind::kCorrupt, "{}: 'layer_types' has {} items for {} layers", config.where(),
         types.size(), layers);
  }
  std::vector<std::int64_t> windows;
  for (const std::string& type : types) {
    if (type == "full_attention") {
      windows.push_back(0);
    } else if (type == "sliding_attention") {
      if (window == 0) {
        fail(ErrorKind::kCorrupt, "{}: a layer is 'sliding_attention' but no sliding_window is set",
             config.where());
      }
      windows.push_back(window);
    } else {
      fail(ErrorKind::kUnsupported, "{}: layer type '{}'", config.where(), type);
    }
  }
  return windows;
}

void read_experts(const ConfigReader& config, ConfigReader::Keys keys, std::int64_t experts,
                  std::int64_t top_k, MlpSpec& mlp) {
  mlp.experts = config.integer_or(keys, 1, kMaxExperts, experts);
  mlp.top_k =
      config.integer_or({"num_experts_per_tok", "experts_per_token"}, 1, kMaxExperts, top_k);
  if (mlp.top_k > mlp.experts) {
    fail(ErrorKind::kCorrupt, "{}: {} of {} experts are to be used", config.where(), mlp.top_k,
         mlp.experts);
  }
}

void name_experts(NameSpec& names) {
  names.dense_gate = names.gate;
  names.dense_up = names.up;
  names.dense_down = names.down;
  names.router = "layers.{}.mlp.gate";
  names.gate = "layers.{}.mlp.experts.{e}.gate_proj";
  names.up = "layers.{}.mlp.experts.{e}.up_proj";
  names.down = "layers.{}.mlp.experts.{e}.down_proj";
  names.fused_experts_gate_up = "layers.{}.mlp.experts.gate_up_proj";
  names.fused_experts_down = "layers.{}.mlp.experts.down_proj";
}

float read_cap(const ConfigReader& config, const char* key, double fallback) {
  if (config.is_null(key)) return 0;
  return static_cast<float>(config.number_or({key}, 1e-6, 1e15, fallback));
}

void like_gemma(ModelSpec& spec) {
  spec.embed_scale = static_cast<float>(std::sqrt(static_cast<double>(spec.hidden)));
  spec.norm.weight_offset = 1;
  spec.final_norm = spec.norm;
  spec.residual = ResidualForm::kSandwich;
  spec.names.attn_post_norm = "layers.{}.post_attention_layernorm";
  spec.names.mlp_norm = "layers.{}.pre_feedforward_layernorm";
  spec.names.mlp_post_norm = "layers.{}.post_feedforward_layernorm";
}

ModelSpec llama_like(const ConfigReader& config, const char* arch, const LlamaDefaults& defaults) {
  ModelSpec spec;
  spec.arch = arch;
  spec.vocab = config.integer({"vocab_size"}, 1, kMaxVocab);
  spec.hidden = config.integer({"hidden_size"}, 1, kMaxHidden);
  spec.layers = config.integer({"num_hidden_layers"}, 1, kMaxLayers);
  spec.max_positions = config.integer_or({"max_position_embeddings"}, 1, kMaxContext, 0);
  spec.embed_dim = spec.hidden;
  spec.norm.eps = static_cast<float>(config.number_or({"rms_norm_eps"}, 0, 1, defaults.norm_eps));
  spec.final_norm = spec.norm;
  spec.attention = llama_attention(config, spec, defaults);
  spec.mlp.intermediate = config.integer({"intermediate_size"}, 1, kMaxIntermediate);
  spec.mlp.activation = read_activation(config, {defaults.activation_key}, defaults.activation);
  spec.tied_head = config.flag_or({"tie_word_embeddings"}, defaults.tied);
  spec.names = llama_names();
  return spec;
}

}  // namespace nibble
