// BERT: an encoder with learned positions, token types, and a norm after each half of the block.
#include <cmath>

#include "base/error.h"
#include "model/arch_common.h"

namespace nibble {
namespace {

NameSpec bert_names() {
  NameSpec names;
  names.prefixes = {"bert.", ""};
  names.embed = "embeddings.word_embeddings";
  names.positions = "embeddings.position_embeddings";
  names.token_types = "embeddings.token_type_embeddings";
  names.embed_norm = "embeddings.LayerNorm";
  names.q = "encoder.layer.{}.attention.self.query";
  names.k = "encoder.layer.{}.attention.self.key";
  names.v = "encoder.layer.{}.attention.self.value";
  names.o = "encoder.layer.{}.attention.output.dense";
  names.attn_norm = "encoder.layer.{}.attention.output.LayerNorm";
  names.up = "encoder.layer.{}.intermediate.dense";
  names.down = "encoder.layer.{}.output.dense";
  names.mlp_norm = "encoder.layer.{}.output.LayerNorm";
  return names;
}

}  // namespace

ModelSpec build_bert(const Json& json) {
  const ConfigReader config(json);
  reject_flag(config, "is_decoder");
  reject_flag(config, "add_cross_attention");
  const std::string positions = config.text_or({"position_embedding_type"}, "absolute");
  if (positions != "absolute") {
    fail(ErrorKind::kUnsupported, "config.json: position_embedding_type '{}'", positions);
  }
  ModelSpec spec;
  spec.arch = "bert";
  spec.decoder = false;
  spec.vocab = config.integer({"vocab_size"}, 1, kMaxVocab);
  spec.hidden = config.integer({"hidden_size"}, 1, kMaxHidden);
  spec.layers = config.integer({"num_hidden_layers"}, 1, kMaxLayers);
  spec.max_positions = config.integer({"max_position_embeddings"}, 1, kMaxContext);
  spec.learned_positions = spec.max_positions;
  spec.token_types = config.integer_or({"type_vocab_size"}, 1, kMaxVocab, 2);
  spec.embed_dim = spec.hidden;

  spec.norm.kind = NormKind::kLayer;
  spec.norm.eps = static_cast<float>(config.number_or({"layer_norm_eps"}, 0, 1, 1e-12));
  spec.norm.has_bias = true;
  spec.embed_norm = spec.norm;
  spec.residual = ResidualForm::kPost;

  AttentionSpec& attention = spec.attention;
  attention.heads = config.integer({"num_attention_heads"}, 1, kMaxHeads);
  attention.kv_heads = attention.heads;
  attention.head_dim = even_head_dim(config, spec.hidden, attention.heads);
  attention.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(attention.head_dim)));
  attention.causal = false;
  attention.qkv_bias = attention.o_bias = true;
  attention.windows.assign(static_cast<std::size_t>(spec.layers), 0);

  spec.mlp.intermediate = config.integer({"intermediate_size"}, 1, kMaxIntermediate);
  spec.mlp.gated = false;
  spec.mlp.bias = true;
  spec.mlp.activation = read_activation(config, {"hidden_act"}, "gelu");
  spec.names = bert_names();
  return spec;
}

}  // namespace nibble
