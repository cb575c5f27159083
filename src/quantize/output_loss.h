// How far the outputs of changed models lie from the source's.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/backend.h"
#include "checkpoint/checkpoint.h"
#include "model/model.h"

namespace nibble {

// Mean over all positions of the distance between the source's output and that of each candidate:
// KL of the distributions in nats, or, for an encoder, the relative squared distance of the hidden
// states. `reference` [rows, hidden] and `hidden` [candidates, rows, hidden] are hidden states
// after the last layer, in the backend's memory.
std::vector<double> output_losses(const ModelSpec& spec, const Checkpoint& source,
                                  const float* reference, const float* hidden,
                                  std::size_t candidates, std::int64_t rows, Backend& backend);

}  // namespace nibble
