// Gemma 3, the text model: Gemma 2 with norms over heads instead of caps, and rotation of its own
// in layers with a window. In checkpoints that see images it stands beside what does.
#include <cmath>

#include "base/error.h"
#include "model/arch_common.h"

namespace nibble {
namespace {

// What transformers assumes where configs of image models leave keys out.
const Json& defaults() {
  static const Json values = {
      {"vocab_size", 262208},    {"hidden_size", 2304},         {"intermediate_size", 9216},
      {"num_hidden_layers", 26}, {"num_attention_heads", 8},    {"num_key_value_heads", 4},
      {"head_dim", 256},         {"sliding_window", 4096},      {"query_pre_attn_scalar", 256},
      {"rms_norm_eps", 1e-6},    {"tie_word_embeddings", true}, {"max_position_embeddings", 131072},
  };
  return values;
}

// Before rope_parameters had one for each kind of layer, rope_scaling was that of full attention.
void read_window_rope(const ConfigReader& config, AttentionSpec& attention) {
  if (attention.window_rope) return;
  RopeSpec rope;
  rope.theta = config.number_or({"rope_local_base_freq"}, 1e-6, 1e15, 10000);
  rope.rotary_dim = attention.head_dim;
  attention.window_rope = rope;
}

}  // namespace

ModelSpec build_gemma3(const Json& json) {
  const bool sees_images = json.contains("text_config") && json["text_config"].is_object();
  Json text = defaults();
  text.update(sees_images ? json["text_config"] : json);
  const ConfigReader config(text);
  reject_flag(config, "use_bidirectional_attention");
  ModelSpec spec = llama_like(config, "gemma3",
                              {.rope_theta = 1e6,
                               .tied = true,
                               .activation_key = "hidden_activation",
                               .activation = "gelu_pytorch_tanh"});
  like_gemma(spec);
  spec.logit_softcap = read_cap(config, "final_logit_softcapping", 0);

  AttentionSpec& attention = spec.attention;
  attention.softcap = read_cap(config, "attn_logit_softcapping", 0);
  attention.scale =
      static_cast<float>(1 / std::sqrt(config.number({"query_pre_attn_scalar"}, 1e-6, 1e15)));
  attention.qkv_bias = attention.o_bias = config.flag_or({"attention_bias"}, false);
  attention.qk_norm = spec.norm;
  const std::int64_t pattern = config.integer_or({"sliding_window_pattern"}, 1, kMaxLayers, 6);
  attention.windows = layer_windows(config, spec.layers, read_window(config, 4096),
                                    [&](std::int64_t layer) { return (layer + 1) % pattern != 0; });
  read_window_rope(config, attention);

  NameSpec& names = spec.names;
  names.prefixes = {"model.", "", "language_model.model.", "model.language_model."};
  names.head = {"lm_head", "language_model.lm_head"};
  names.q_norm = "layers.{}.self_attn.q_norm";
  names.k_norm = "layers.{}.self_attn.k_norm";
  return spec;
}

}  // namespace nibble
