// Mixtral: Mistral with a mixture of experts in every layer. Checkpoints store one module an expert
// (w1 gate, w3 up, w2 down) or, from newer tools, all experts in one tensor.
#include "model/arch_common.h"

namespace nibble {

ModelSpec build_mixtral(const Json& json) {
  const ConfigReader config(json);
  ModelSpec spec =
      llama_like(config, "mixtral", {.rope_theta = 1e6, .norm_eps = 1e-5, .kv_heads = 8});
  spec.attention.windows.assign(static_cast<std::size_t>(spec.layers), read_window(config, 0));

  read_experts(config, {"num_local_experts", "num_experts"}, 8, 2, spec.mlp);

  NameSpec& names = spec.names;
  names.router = "layers.{}.block_sparse_moe.gate";
  names.gate = "layers.{}.block_sparse_moe.experts.{e}.w1";
  names.up = "layers.{}.block_sparse_moe.experts.{e}.w3";
  names.down = "layers.{}.block_sparse_moe.experts.{e}.w2";
  names.fused_experts_router = "layers.{}.mlp.gate";
  names.fused_experts_gate_up = "layers.{}.mlp.experts.gate_up_proj";
  names.fused_experts_down = "layers.{}.mlp.experts.down_proj";
  return spec;
}

}  // namespace nibble
