// Phi-3: Llama with q, k, v in one module and gate, up in another; longrope, partial rotation.
#include "model/arch_common.h"

namespace nibble {

ModelSpec build_phi3(const Json& json) {
  const ConfigReader config(json);
  ModelSpec spec = llama_like(
      config, "phi3", {.norm_eps = 1e-5, .partial_rotary = true, .original_max_positions = 4096});
  spec.attention.layout = QkvLayout::kConcat;
  spec.attention.windows.assign(static_cast<std::size_t>(spec.layers), read_window(config, 0));
  spec.mlp.concat_gate_up = true;

  NameSpec& names = spec.names;
  names.q = names.k = names.v = names.gate = names.up = "";
  names.qkv = "layers.{}.self_attn.qkv_proj";
  names.gate_up = "layers.{}.mlp.gate_up_proj";
  return spec;
}

}  // namespace nibble
