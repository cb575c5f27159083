// GPT-2: learned positions, linear weights stored [in, out].
#include <cmath>

#include "model/arch_common.h"

namespace nibble {
namespace {

NameSpec gpt2_names() {
  NameSpec names;
  names.prefixes = {"transformer.", ""};
  names.embed = "wte";
  names.positions = "wpe";
  names.attn_norm = "h.{}.ln_1";
  names.mlp_norm = "h.{}.ln_2";
  names.qkv = "h.{}.attn.c_attn";
  names.o = "h.{}.attn.c_proj";
  names.up = "h.{}.mlp.c_fc";
  names.down = "h.{}.mlp.c_proj";
  names.final_norm = "ln_f";
  names.head = {"lm_head"};
  return names;
}

}  // namespace

ModelSpec build_gpt2(const Json& json) {
  const ConfigReader config(json);
  reject_flag(config, "add_cross_attention");
  ModelSpec spec;
  spec.arch = "gpt2";
  spec.vocab = config.integer({"vocab_size"}, 1, kMaxVocab);
  spec.hidden = config.integer({"n_embd", "hidden_size"}, 1, kMaxHidden);
  spec.layers = config.integer({"n_layer", "num_hidden_layers"}, 1, kMaxLayers);
  spec.max_positions = config.integer({"n_positions", "max_position_embeddings"}, 1, kMaxContext);
  spec.learned_positions = spec.max_positions;
  spec.embed_dim = spec.hidden;
  spec.tied_head = config.flag_or({"tie_word_embeddings"}, true);
  spec.transposed_linears = true;

  spec.norm.kind = NormKind::kLayer;
  spec.norm.eps = static_cast<float>(config.number_or({"layer_norm_epsilon"}, 0, 1, 1e-5));
  spec.norm.has_bias = true;
  spec.final_norm = spec.norm;

  AttentionSpec& attention = spec.attention;
  attention.heads = config.integer({"n_head", "num_attention_heads"}, 1, kMaxHeads);
  attention.kv_heads = attention.heads;
  attention.head_dim = even_head_dim(config, spec.hidden, attention.heads);
  attention.scale = config.flag_or({"scale_attn_weights"}, true)
                        ? static_cast<float>(1 / std::sqrt(static_cast<double>(attention.head_dim)))
                        : 1.0f;
  attention.inverse_layer_scale = config.flag_or({"scale_attn_by_inverse_layer_idx"}, false);
  attention.layout = QkvLayout::kConcat;
  attention.qkv_bias = attention.o_bias = true;
  attention.windows.assign(static_cast<std::size_t>(spec.layers), 0);

  spec.mlp.intermediate = config.integer_or({"n_inner"}, 1, kMaxIntermediate, 4 * spec.hidden);
  spec.mlp.gated = false;
  spec.mlp.bias = true;
  spec.mlp.activation = read_activation(config, {"activation_function"}, "gelu_new");
  spec.names = gpt2_names();
  return spec;
}

}  // namespace nibble
