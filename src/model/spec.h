// ModelSpec: an architecture with its sizes, as data. Built from config.json by the functions of
// archs/, interpreted by the one forward pass (model.h), and the source of weight names,
// calibration sites and smoothing pairs (sites.h). An architecture adds values here, never code in
// the forward pass.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ops/args.h"

namespace nibble {

struct NormSpec {
  NormKind kind = NormKind::kRms;
  float eps = 1e-5f;
  float weight_offset = 0;  // Gemma stores weight - 1
  bool has_weight = true;   // OPT may switch the affine part off
  bool has_bias = false;
};

enum class RopeKind { kDefault, kLinear, kDynamic, kLlama3, kYarn, kLongRope };

// Rotary embedding; field names follow the config keys of rope_parameters.
struct RopeSpec {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000;
  // int(head_dim * partial_rotary_factor). The frequencies are theta^(-2i / rotary_dim); when it is
  // odd, one element more is rotated (as GPT-NeoX does).
  std::int64_t rotary_dim = 0;
  bool interleaved = false;
  double factor = 1;
  std::int64_t max_positions = 0;                                  // dynamic: where scaling begins
  std::int64_t original_max_positions = 0;                         // llama3, yarn, longrope
  double low_freq_factor = 1, high_freq_factor = 4;                // llama3
  double beta_fast = 32, beta_slow = 1;                            // yarn
  std::optional<double> attention_factor, mscale, mscale_all_dim;  // yarn, longrope
  bool truncate = true;                                            // yarn
  std::vector<double> short_factor, long_factor;                   // longrope

  bool operator==(const RopeSpec&) const = default;
};

// How q, k and v lie in the checkpoint's linear layers.
enum class QkvLayout {
  kSeparate,  // three modules
  kConcat,    // one module: all of q, then k, then v
  kPerHead,   // one module: for each head q, k, v (equal numbers of heads)
  kLatent,    // by way of narrow vectors (LatentSpec)
};

// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, 2.1): keys and values are made of one
// narrow vector a token, queries of another. A key is nope_dim elements of its head, then rope_dim
// rotated ones that all heads share; so is a query, with rotated elements of its own.
struct LatentSpec {
  std::int64_t q_rank = 0;  // 0: one module makes queries of the hidden state
  std::int64_t kv_rank = 0;
  std::int64_t nope_dim = 0, rope_dim = 0;  // head_dim is their sum
  std::int64_t value_dim = 0;               // at most head_dim
  NormSpec norm;                            // of the narrow vectors
};

struct AttentionSpec {
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  QkvLayout layout = QkvLayout::kSeparate;
  bool causal = true;
  float scale = 0;    // multiplies q.k
  float softcap = 0;  // 0 = none
  bool alibi = false;
  bool inverse_layer_scale = false;  // scale / (layer + 1) in each layer (GPT-2)
  bool qkv_bias = false, o_bias = false;
  std::optional<RopeSpec> rope;
  std::optional<RopeSpec> window_rope;  // of the layers with a window, when it differs
  std::optional<NormSpec> qk_norm;      // over head_dim, before rope
  std::optional<LatentSpec> latent;     // of QkvLayout::kLatent
  bool sinks = false;                   // a score more for each head (AttentionArgs)
  std::vector<std::int64_t> windows;    // one a layer; 0 = sees everything before it

  // Of one head, as the output projection takes them.
  std::int64_t value_dim() const { return latent ? latent->value_dim : head_dim; }
};

struct MlpSpec {
  std::int64_t intermediate = 0;
  bool gated = true;  // down(act(gate(x)) * up(x)); without: down(act(up(x)))
  bool bias = false;
  bool concat_gate_up = false;  // one module: gate rows, then up rows
  Activation activation = Activation::kSilu;
  float limit = 0;      // ActivationArgs::limit
  float up_offset = 0;  // ActivationArgs::multiplier_offset

  // Mixtures of experts; `intermediate` is that of an expert. Routing: MoeRouteArgs.
  std::int64_t experts = 0;  // 0 = dense
  std::int64_t top_k = 0;
  RouteScore score = RouteScore::kSoftmax;
  bool renormalize = true;  // expert weights divided by their sum
  float route_scale = 1;
  std::int64_t groups = 1, top_groups = 1;
  bool router_bias = false;
  bool choice_bias = false;
  std::int64_t shared_intermediate = 0;  // of an expert that every token goes through; 0 = none
  std::vector<bool> dense_layers;        // layers without experts, one a layer; empty = none
  std::int64_t dense_intermediate = 0;   // of those
  // Of the tensors that hold all experts: rows of gate and up in turns instead of gate, then up;
  // and plain weights stored [experts, in, out].
  bool alternating_gate_up = false;
  bool transposed_experts = false;

  bool has_experts(std::int64_t layer) const {
    return experts > 0 && (dense_layers.empty() || !dense_layers[static_cast<std::size_t>(layer)]);
  }
};

enum class ResidualForm {
  kPre,        // x += attn(norm(x)); x += mlp(norm(x))
  kPreNormed,  // x = norm(x); x += attn(x); x = norm(x); x += mlp(x)  (BLOOM, post_layernorm)
  kPost,       // x = norm(x + attn(x)); x = norm(x + mlp(x))        (BERT, post-norm OPT)
  kSandwich,   // x += norm(attn(norm(x))); x += norm(mlp(norm(x)))  (Gemma 2)
  kParallel,   // x += attn(norm1(x)) + mlp(norm2(x))                (GPT-NeoX)
};

// Tensor and module names. "{}" stands for the layer, "{e}" for the expert; an empty name means
// absent. All start after one of `prefixes`, the first under which the checkpoint has the
// embedding.
struct NameSpec {
  std::vector<std::string> prefixes;
  std::string embed, positions, token_types, embed_norm, project_in, project_out;
  std::string attn_norm, attn_post_norm, mlp_norm, mlp_post_norm;  // modules
  std::string q, k, v, qkv, o, q_norm, k_norm;
  std::string q_a, q_a_norm, kv_a, kv_a_norm, kv_b;  // latent attention; q makes q of q_a's result
  std::string sinks;                                 // a tensor
  std::string gate, up, gate_up, down;               // with "{e}" for mixtures of experts
  std::string dense_gate, dense_up, dense_down;      // of their layers without experts
  std::string shared_gate, shared_up, shared_down;
  std::string router, router_choice_bias;  // the latter a tensor
  // All experts in one tensor [experts, rows, cols] each, or in one quantized matrix [experts *
  // rows, cols], used when it is stored; the experts then get the module names above. Their biases
  // are the tensor of the same name with "_bias" behind it.
  std::string fused_experts_gate_up, fused_experts_down, fused_experts_router;
  std::string final_norm;
  std::vector<std::string> head;  // modules, full names (no prefix), tried in order
};

struct ModelSpec {
  std::string arch;  // registry name: "llama"
  std::int64_t vocab = 0, hidden = 0, layers = 0;
  std::int64_t max_positions = 0;  // 0 = no limit of the architecture's own
  bool decoder = true;             // false: encoder, the result is the last hidden state

  float embed_scale = 1;
  std::int64_t embed_dim = 0;  // width of the embedding table; != hidden with project_in/out
  std::int64_t learned_positions = 0;  // rows of the position table, 0 = none
  std::int64_t position_offset = 0;    // OPT: 2
  std::int64_t token_types = 0;        // rows of that table, 0 = none; row 0 is added to all tokens
  std::optional<NormSpec> embed_norm;
  NormSpec norm;  // of the blocks
  std::optional<NormSpec> final_norm;
  ResidualForm residual = ResidualForm::kPre;
  AttentionSpec attention;
  MlpSpec mlp;
  bool transposed_linears = false;  // plain weights are stored [in, out] (GPT-2 Conv1D)
  bool tied_head = false;  // the head is the embedding, unless a head that differs is stored
  float logit_softcap = 0;
  NameSpec names;
};

}  // namespace nibble
