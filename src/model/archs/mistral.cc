// Mistral: Llama with a sliding window in every layer.
#include "model/arch_common.h"

namespace nibble {

ModelSpec build_mistral(const Json& json) {
  const ConfigReader config(json);
  ModelSpec spec = llama_like(config, "mistral", {.kv_heads = 8});
  // Files written before the key could be null leave it out only when 4096 is meant.
  spec.attention.windows.assign(static_cast<std::size_t>(spec.layers), read_window(config, 4096));
  return spec;
}

}  // namespace nibble
