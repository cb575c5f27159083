// A decoder or encoder block that can be differentiated: forward as run_layer() computes it, then
// the gradients of its weights. Whatever a ModelSpec can say is served.
//
// The choice of experts is held fixed, the weights that a router gives them are not. The gradient
// goes straight through the rounding of activations.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/grad/grad_ops.h"

namespace nibble {

// kUnsupported, with the reason, when a backend keeps its memory apart from the host's.
void require_gradients(Backend& backend);

// The block over equal windows of `length` rows; hidden is [rows, spec.hidden]. The weights are F32
// and prepared (load_layer_f32), and must outlive the result, as the context must.
GradNode& differentiable_block(GradContext& context, const ModelSpec& spec, std::int64_t layer,
                               const LayerWeights& weights, std::span<const float> hidden,
                               std::int64_t length);

}  // namespace nibble
