// GPT-NeoX and Pythia: both halves of the block read the same input (or not), partial rotation.
#include <cmath>

#include "model/arch_common.h"

namespace nibble {
namespace {

NameSpec gpt_neox_names() {
  NameSpec names;
  names.prefixes = {"gpt_neox.", ""};
  names.embed = "embed_in";
  names.attn_norm = "layers.{}.input_layernorm";
  names.mlp_norm = "layers.{}.post_attention_layernorm";
  names.qkv = "layers.{}.attention.query_key_value";
  names.o = "layers.{}.attention.dense";
  names.up = "layers.{}.mlp.dense_h_to_4h";
  names.down = "layers.{}.mlp.dense_4h_to_h";
  names.final_norm = "final_layer_norm";
  names.head = {"embed_out", "lm_head"};
  return names;
}

}  // namespace

ModelSpec build_gpt_neox(const Json& json) {
  const ConfigReader config(json);
  ModelSpec spec;
  spec.arch = "gpt_neox";
  spec.vocab = config.integer({"vocab_size"}, 1, kMaxVocab);
  spec.hidden = config.integer({"hidden_size"}, 1, kMaxHidden);
  spec.layers = config.integer({"num_hidden_layers"}, 1, kMaxLayers);
  spec.max_positions = config.integer_or({"max_position_embeddings"}, 1, kMaxContext, 2048);
  spec.embed_dim = spec.hidden;
  spec.tied_head = config.flag_or({"tie_word_embeddings"}, false);

  spec.norm.kind = NormKind::kLayer;
  spec.norm.eps = static_cast<float>(config.number_or({"layer_norm_eps"}, 0, 1, 1e-5));
  spec.norm.has_bias = true;
  spec.final_norm = spec.norm;
  spec.residual = config.flag_or({"use_parallel_residual"}, true) ? ResidualForm::kParallel
                                                                  : ResidualForm::kPre;

  AttentionSpec& attention = spec.attention;
  attention.heads = config.integer({"num_attention_heads"}, 1, kMaxHeads);
  attention.kv_heads = attention.heads;
  attention.head_dim = even_head_dim(config, spec.hidden, attention.heads);
  attention.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(attention.head_dim)));
  attention.layout = QkvLayout::kPerHead;
  attention.qkv_bias = attention.o_bias = config.flag_or({"attention_bias"}, true);
  attention.windows.assign(static_cast<std::size_t>(spec.layers), 0);
  RopeDefaults rope;
  rope.head_dim = attention.head_dim;
  rope.max_positions = spec.max_positions;
  rope.partial = true;
  rope.partial_factor = 0.25;
  read_rope(config, rope, attention);

  spec.mlp.intermediate = config.integer({"intermediate_size"}, 1, kMaxIntermediate);
  spec.mlp.gated = false;
  spec.mlp.bias = true;
  spec.mlp.activation = read_activation(config, {"hidden_act"}, "gelu");
  spec.names = gpt_neox_names();
  return spec;
}

}  // namespace nibble
