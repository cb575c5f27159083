// Qwen2 and 2.5: Llama with biases on q, k and v, and windows in some layers.
#include "model/arch_common.h"

namespace nibble {

ModelSpec build_qwen2(const Json& json) {
  const ConfigReader config(json);
  ModelSpec spec = llama_like(config, "qwen2", {.kv_heads = 32});
  spec.attention.qkv_bias = true;

  const bool use_windows = config.flag_or({"use_sliding_window"}, false);
  const std::int64_t window = use_windows ? read_window(config, 4096) : 0;
  const std::int64_t first = config.integer_or({"max_window_layers"}, 0, kMaxContext, 28);
  spec.attention.windows = layer_windows(config, spec.layers, window, [&](std::int64_t layer) {
    return window > 0 && layer >= first;
  });
  return spec;
}

}  // namespace nibble
