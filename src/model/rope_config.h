// Rotary embedding parameters from config.json, in all spellings that transformers has used.
#pragma once

#include "model/config_reader.h"
#include "model/spec.h"

namespace nibble {

struct RopeDefaults {
  std::int64_t head_dim = 0;
  std::int64_t max_positions = 0;
  double theta = 10000;
  bool partial = false;  // the architecture knows partial_rotary_factor
  double partial_factor = 1;
  // Phi-3: a top-level original_max_position_embeddings exists even when it is not stored.
  std::int64_t original_max_positions = 0;
};

// Fills attention.rope, and attention.window_rope when layers with a window have their own. Read:
//   rope_parameters {rope_type, rope_theta, partial_rotary_factor, ...}, or the same for each layer
//   type {full_attention: {...}, sliding_attention: {...}}; older: rope_scaling {rope_type or type,
//   ...} with rope_theta (rotary_emb_base) and partial_rotary_factor (rotary_pct) at the top level.
// kUnsupported for unknown types, kCorrupt for missing or absurd parameters.
void read_rope(const ConfigReader& config, const RopeDefaults& defaults, AttentionSpec& attention);

}  // namespace nibble
