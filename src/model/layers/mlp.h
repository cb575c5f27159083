// The feed-forward half of a block: dense, or a mixture of experts.
#pragma once

#include "model/layers/layer_context.h"

namespace nibble {

// out [rows, hidden] = mlp(x [rows, hidden]), x being what `chain` makes; out may be x when it
// accumulates.
void run_mlp(const LayerContext& context, OpChain& chain, const float* x, std::int64_t rows,
             Output out);

// Asks for the experts of rows; what is chosen, and its weights, go where the caller says.
MoeRouteArgs route_args(const MlpSpec& spec, std::span<const float> choice_bias,
                        const float* logits, std::int64_t rows);

}  // namespace nibble
