#include "checkpoint/gguf_arch.h"

#include <algorithm>

namespace nibble {
namespace {

using enum GgufChange;

constexpr GgufName kLlamaNames[] = {
    {"token_embd", "embed_tokens"},
    {"output_norm", "norm"},
    {"blk.{}.attn_norm", "layers.{}.input_layernorm"},
    {"blk.{}.attn_q", "layers.{}.self_attn.q_proj", kQueryRows},
    {"blk.{}.attn_k", "layers.{}.self_attn.k_proj", kKeyRows},
    {"blk.{}.attn_v", "layers.{}.self_attn.v_proj"},
    {"blk.{}.attn_output", "layers.{}.self_attn.o_proj"},
    {"blk.{}.ffn_norm", "layers.{}.post_attention_layernorm"},
    {"blk.{}.ffn_gate", "layers.{}.mlp.gate_proj"},
    {"blk.{}.ffn_up", "layers.{}.mlp.up_proj"},
    {"blk.{}.ffn_down", "layers.{}.mlp.down_proj"},
    {"blk.{}.ffn_gate_inp", "layers.{}.block_sparse_moe.gate"},
    {"blk.{}.ffn_gate_exps", "layers.{}.block_sparse_moe.experts.{e}.w1"},
    {"blk.{}.ffn_up_exps", "layers.{}.block_sparse_moe.experts.{e}.w3"},
    {"blk.{}.ffn_down_exps", "layers.{}.block_sparse_moe.experts.{e}.w2"},
};

// Qwen 2 and 3: Llama whose rotation is the same here and there.
constexpr GgufName kQwenNames[] = {
    {"token_embd", "embed_tokens"},
    {"output_norm", "norm"},
    {"blk.{}.attn_norm", "layers.{}.input_layernorm"},
    {"blk.{}.attn_q", "layers.{}.self_attn.q_proj"},
    {"blk.{}.attn_k", "layers.{}.self_attn.k_proj"},
    {"blk.{}.attn_v", "layers.{}.self_attn.v_proj"},
    {"blk.{}.attn_q_norm", "layers.{}.self_attn.q_norm"},
    {"blk.{}.attn_k_norm", "layers.{}.self_attn.k_norm"},
    {"blk.{}.attn_output", "layers.{}.self_attn.o_proj"},
    {"blk.{}.ffn_norm", "layers.{}.post_attention_layernorm"},
    {"blk.{}.ffn_gate", "layers.{}.mlp.gate_proj"},
    {"blk.{}.ffn_up", "layers.{}.mlp.up_proj"},
    {"blk.{}.ffn_down", "layers.{}.mlp.down_proj"},
};

constexpr GgufName kGemma2Names[] = {
    {"token_embd", "embed_tokens"},
    {"output_norm", "norm", kPlusOne},
    {"blk.{}.attn_norm", "layers.{}.input_layernorm", kPlusOne},
    {"blk.{}.attn_q", "layers.{}.self_attn.q_proj"},
    {"blk.{}.attn_k", "layers.{}.self_attn.k_proj"},
    {"blk.{}.attn_v", "layers.{}.self_attn.v_proj"},
    {"blk.{}.attn_output", "layers.{}.self_attn.o_proj"},
    {"blk.{}.post_attention_norm", "layers.{}.post_attention_layernorm", kPlusOne},
    {"blk.{}.ffn_norm", "layers.{}.pre_feedforward_layernorm", kPlusOne},
    {"blk.{}.post_ffw_norm", "layers.{}.post_feedforward_layernorm", kPlusOne},
    {"blk.{}.ffn_gate", "layers.{}.mlp.gate_proj"},
    {"blk.{}.ffn_up", "layers.{}.mlp.up_proj"},
    {"blk.{}.ffn_down", "layers.{}.mlp.down_proj"},
};

constexpr GgufName kPhi3Names[] = {
    {"token_embd", "embed_tokens"},
    {"output_norm", "norm"},
    {"blk.{}.attn_norm", "layers.{}.input_layernorm"},
    {"blk.{}.attn_qkv", "layers.{}.self_attn.qkv_proj"},
    {"blk.{}.attn_output", "layers.{}.self_attn.o_proj"},
    {"blk.{}.ffn_norm", "layers.{}.post_attention_layernorm"},
    {"blk.{}.ffn_up", "layers.{}.mlp.gate_up_proj"},
    {"blk.{}.ffn_down", "layers.{}.mlp.down_proj"},
};

constexpr GgufName kGpt2Names[] = {
    {"token_embd", "wte"},
    {"position_embd", "wpe"},
    {"output_norm", "ln_f"},
    {"blk.{}.attn_norm", "h.{}.ln_1"},
    {"blk.{}.attn_qkv", "h.{}.attn.c_attn", kTransposed},
    {"blk.{}.attn_output", "h.{}.attn.c_proj", kTransposed},
    {"blk.{}.ffn_norm", "h.{}.ln_2"},
    {"blk.{}.ffn_up", "h.{}.mlp.c_fc", kTransposed},
    {"blk.{}.ffn_down", "h.{}.mlp.c_proj", kTransposed},
};

constexpr GgufName kBloomNames[] = {
    {"token_embd", "word_embeddings"},
    {"token_embd_norm", "word_embeddings_layernorm"},
    {"output_norm", "ln_f"},
    {"blk.{}.attn_norm", "h.{}.input_layernorm"},
    {"blk.{}.attn_qkv", "h.{}.self_attention.query_key_value", kQkvRows},
    {"blk.{}.attn_output", "h.{}.self_attention.dense"},
    {"blk.{}.ffn_norm", "h.{}.post_attention_layernorm"},
    {"blk.{}.ffn_up", "h.{}.mlp.dense_h_to_4h"},
    {"blk.{}.ffn_down", "h.{}.mlp.dense_4h_to_h"},
};

constexpr GgufName kGptNeoxNames[] = {
    {"token_embd", "embed_in"},
    {"output_norm", "final_layer_norm"},
    {"blk.{}.attn_norm", "layers.{}.input_layernorm"},
    {"blk.{}.attn_qkv", "layers.{}.attention.query_key_value", kQkvRows},
    {"blk.{}.attn_output", "layers.{}.attention.dense"},
    {"blk.{}.ffn_norm", "layers.{}.post_attention_layernorm"},
    {"blk.{}.ffn_up", "layers.{}.mlp.dense_h_to_4h"},
    {"blk.{}.ffn_down", "layers.{}.mlp.dense_4h_to_h"},
};

constexpr GgufName kBertNames[] = {
    {"token_embd", "embeddings.word_embeddings"},
    {"position_embd", "embeddings.position_embeddings"},
    {"token_types", "embeddings.token_type_embeddings"},
    {"token_embd_norm", "embeddings.LayerNorm"},
    {"blk.{}.attn_q", "encoder.layer.{}.attention.self.query"},
    {"blk.{}.attn_k", "encoder.layer.{}.attention.self.key"},
    {"blk.{}.attn_v", "encoder.layer.{}.attention.self.value"},
    {"blk.{}.attn_output", "encoder.layer.{}.attention.output.dense"},
    {"blk.{}.attn_output_norm", "encoder.layer.{}.attention.output.LayerNorm"},
    {"blk.{}.ffn_up", "encoder.layer.{}.intermediate.dense"},
    {"blk.{}.ffn_down", "encoder.layer.{}.output.dense"},
    {"blk.{}.layer_output_norm", "encoder.layer.{}.output.LayerNorm"},
};

constexpr GgufArch kArchs[] = {
    {"llama", "model.", "lm_head", kLlamaNames},
    {"qwen2", "model.", "lm_head", kQwenNames},
    {"qwen3", "model.", "lm_head", kQwenNames},
    {"gemma2", "model.", "lm_head", kGemma2Names},
    {"phi3", "model.", "lm_head", kPhi3Names},
    {"gpt2", "transformer.", "lm_head", kGpt2Names},
    {"bloom", "transformer.", "lm_head", kBloomNames},
    {"gptneox", "gpt_neox.", "embed_out", kGptNeoxNames},
    {"bert", "", "", kBertNames},
};

}  // namespace

const GgufArch* gguf_arch_named(std::string_view name) {
  const auto found = std::ranges::find(kArchs, name, &GgufArch::name);
  return found == std::end(kArchs) ? nullptr : found;
}

std::int64_t gguf_row(GgufChange change, std::int64_t row, std::int64_t rows, std::int64_t heads) {
  const std::int64_t per_head = rows / heads;
  const std::int64_t head = row / per_head, i = row % per_head;
  if (change == kQueryRows || change == kKeyRows) {
    const std::int64_t half = per_head / 2;
    return head * per_head + (i < half ? 2 * i : 2 * (i - half) + 1);
  }
  if (change != kQkvRows) return row;
  const std::int64_t size = per_head / 3;
  return (i / size * heads + head) * size + i % size;
}

}  // namespace nibble
