// Qwen3: norms over each head of q and k before the rotation.
#include "model/arch_common.h"

namespace nibble {

ModelSpec build_qwen3(const Json& json) {
  const ConfigReader config(json);
  ModelSpec spec = llama_like(config, "qwen3", {.head_dim = 128, .kv_heads = 32});
  spec.attention.qkv_bias = config.flag_or({"attention_bias"}, false);
  spec.attention.o_bias = spec.attention.qkv_bias;
  spec.attention.qk_norm = spec.norm;

  const bool use_windows = config.flag_or({"use_sliding_window"}, false);
  const std::int64_t window = use_windows ? read_window(config, 4096) : 0;
  const std::int64_t first = config.integer_or({"max_window_layers"}, 0, kMaxContext, 28);
  spec.attention.windows = layer_windows(config, spec.layers, window, [&](std::int64_t layer) {
    return window > 0 && layer >= first;
  });

  spec.names.q_norm = "layers.{}.self_attn.q_norm";
  spec.names.k_norm = "layers.{}.self_attn.k_norm";
  return spec;
}

}  // namespace nibble
