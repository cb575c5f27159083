// OPT: learned positions from row 2 on; the norm before or (350m) after each half of the block; the
// embedding may be narrower than the blocks.
#include <cmath>

#include "model/arch_common.h"

namespace nibble {
namespace {

NameSpec opt_names() {
  NameSpec names;
  names.prefixes = {"model.decoder.", "decoder.", ""};
  names.embed = "embed_tokens";
  names.positions = "embed_positions";
  names.attn_norm = "layers.{}.self_attn_layer_norm";
  names.mlp_norm = "layers.{}.final_layer_norm";
  names.q = "layers.{}.self_attn.q_proj";
  names.k = "layers.{}.self_attn.k_proj";
  names.v = "layers.{}.self_attn.v_proj";
  names.o = "layers.{}.self_attn.out_proj";
  names.up = "layers.{}.fc1";
  names.down = "layers.{}.fc2";
  names.head = {"lm_head"};
  return names;
}

}  // namespace

ModelSpec build_opt(const Json& json) {
  const ConfigReader config(json);
  ModelSpec spec;
  spec.arch = "opt";
  spec.vocab = config.integer({"vocab_size"}, 1, kMaxVocab);
  spec.hidden = config.integer({"hidden_size"}, 1, kMaxHidden);
  spec.layers = config.integer({"num_hidden_layers"}, 1, kMaxLayers);
  spec.max_positions = config.integer({"max_position_embeddings"}, 1, kMaxContext);
  spec.position_offset = 2;
  spec.learned_positions = spec.max_positions + spec.position_offset;
  spec.embed_dim = config.integer_or({"word_embed_proj_dim"}, 1, kMaxHidden, spec.hidden);
  spec.tied_head = config.flag_or({"tie_word_embeddings"}, true);

  const bool affine = config.flag_or({"layer_norm_elementwise_affine"}, true);
  spec.norm = {.kind = NormKind::kLayer, .eps = 1e-5f, .has_weight = affine, .has_bias = affine};
  const bool norm_first = config.flag_or({"do_layer_norm_before"}, true);
  spec.residual = norm_first ? ResidualForm::kPre : ResidualForm::kPost;
  if (norm_first && !config.flag_or({"_remove_final_layer_norm"}, false)) {
    spec.final_norm = spec.norm;
  }

  const bool bias = config.flag_or({"enable_bias"}, true);
  AttentionSpec& attention = spec.attention;
  attention.heads = config.integer({"num_attention_heads"}, 1, kMaxHeads);
  attention.kv_heads = attention.heads;
  attention.head_dim = even_head_dim(config, spec.hidden, attention.heads);
  attention.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(attention.head_dim)));
  attention.qkv_bias = attention.o_bias = bias;
  attention.windows.assign(static_cast<std::size_t>(spec.layers), 0);

  spec.mlp.intermediate = config.integer({"ffn_dim"}, 1, kMaxIntermediate);
  spec.mlp.gated = false;
  spec.mlp.bias = bias;
  spec.mlp.activation = read_activation(config, {"activation_function"}, "relu");

  spec.names = opt_names();
  if (spec.final_norm) spec.names.final_norm = "final_layer_norm";
  if (spec.embed_dim != spec.hidden) {
    spec.names.project_in = "project_in";
    spec.names.project_out = "project_out";
  }
  return spec;
}

}  // namespace nibble
