// BLOOM: ALiBi instead of positions, a norm after the embedding, q, k, v interleaved by head.
#include <cmath>

#include "model/arch_common.h"

namespace nibble {
namespace {

NameSpec bloom_names() {
  NameSpec names;
  names.prefixes = {"transformer.", ""};
  names.embed = "word_embeddings";
  names.embed_norm = "word_embeddings_layernorm";
  names.attn_norm = "h.{}.input_layernorm";
  names.mlp_norm = "h.{}.post_attention_layernorm";
  names.qkv = "h.{}.self_attention.query_key_value";
  names.o = "h.{}.self_attention.dense";
  names.up = "h.{}.mlp.dense_h_to_4h";
  names.down = "h.{}.mlp.dense_4h_to_h";
  names.final_norm = "ln_f";
  names.head = {"lm_head"};
  return names;
}

}  // namespace

ModelSpec build_bloom(const Json& json) {
  const ConfigReader config(json);
  ModelSpec spec;
  spec.arch = "bloom";
  spec.vocab = config.integer({"vocab_size"}, 1, kMaxVocab);
  spec.hidden = config.integer({"hidden_size", "n_embed"}, 1, kMaxHidden);
  spec.layers = config.integer({"n_layer", "num_hidden_layers"}, 1, kMaxLayers);
  spec.embed_dim = spec.hidden;
  spec.tied_head = config.flag_or({"tie_word_embeddings"}, true);

  spec.norm.kind = NormKind::kLayer;
  spec.norm.eps = static_cast<float>(config.number_or({"layer_norm_epsilon"}, 0, 1, 1e-5));
  spec.norm.has_bias = true;
  spec.embed_norm = spec.norm;
  spec.final_norm = spec.norm;
  spec.residual = config.flag_or({"apply_residual_connection_post_layernorm"}, false)
                      ? ResidualForm::kPreNormed
                      : ResidualForm::kPre;

  AttentionSpec& attention = spec.attention;
  attention.heads = config.integer({"n_head", "num_attention_heads"}, 1, kMaxHeads);
  attention.kv_heads = attention.heads;
  attention.head_dim = even_head_dim(config, spec.hidden, attention.heads);
  attention.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(attention.head_dim)));
  attention.layout = QkvLayout::kPerHead;
  attention.qkv_bias = attention.o_bias = true;
  attention.alibi = true;
  attention.windows.assign(static_cast<std::size_t>(spec.layers), 0);

  spec.mlp.intermediate = 4 * spec.hidden;
  spec.mlp.gated = false;
  spec.mlp.bias = true;
  spec.mlp.activation = Activation::kGeluTanh;
  spec.names = bloom_names();
  return spec;
}

}  // namespace nibble
