// Gemma 2: norms before and after each half of the block, capped scores and logits, a window in
// every other layer, scaled embedding, norm weights stored less one.
#include <cmath>

#include "model/arch_common.h"

namespace nibble {
ModelSpec build_gemma2(const Json& json) {
  const ConfigReader config(json);
  reject_flag(config, "use_bidirectional_attention");
  // hidden_activation decides; hidden_act, which stands beside it in old files, is not read.
  ModelSpec spec = llama_like(config, "gemma2",
                              {.tied = true,
                               .head_dim = 256,
                               .kv_heads = 4,
                               .activation_key = "hidden_activation",
                               .activation = "gelu_pytorch_tanh"});
  like_gemma(spec);
  spec.logit_softcap = read_cap(config, "final_logit_softcapping", 30);

  AttentionSpec& attention = spec.attention;
  attention.softcap = read_cap(config, "attn_logit_softcapping", 50);
  attention.scale = static_cast<float>(
      1 / std::sqrt(config.number_or({"query_pre_attn_scalar"}, 1e-6, 1e15, 256)));
  attention.qkv_bias = config.flag_or({"attention_bias"}, false);
  attention.o_bias = attention.qkv_bias;
  attention.windows = layer_windows(config, spec.layers, read_window(config, 4096),
                                    [](std::int64_t layer) { return layer % 2 == 0; });
  return spec;
}

}  // namespace nibble
