// Llama 1-3 and the many models that are stored as Llama.
#include "model/arch_common.h"

namespace nibble {

ModelSpec build_llama(const Json& json) {
  const ConfigReader config(json);
  ModelSpec spec = llama_like(config, "llama");
  spec.attention.qkv_bias = config.flag_or({"attention_bias"}, false);
  spec.attention.o_bias = spec.attention.qkv_bias;
  spec.mlp.bias = config.flag_or({"mlp_bias"}, false);
  return spec;
}

}  // namespace nibble
