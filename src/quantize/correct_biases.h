// The corrections of a recipe, on a block whose weights have been rounded.
#pragma once

#include "quantize/calibration_stream.h"
#include "quantize/passes.h"

namespace nibble {

// Changes the biases of a block, site after site in the order of the forward pass, each on the
// inputs that the corrected sites before it give. `full`: the block before anything in it was
// rounded; `weights`: float32, prepared, as they are stored; the biases afterwards are those of
// their stored type. Linears without a bias, and experts that no token came to, stay as they are.
// The stream holds both models.
void correct_biases(const Job& job, std::int64_t layer, LayerWeights& full,
                    CalibrationStream& stream, LayerWeights& weights);

// kUnsupported when the recipe corrects biases and no linear of the blocks has one. Else what to
// say of those that have none; empty for nothing.
std::string uncorrected_linears(const Recipe& recipe, const ModelSpec& spec,
                                const Checkpoint& source, Backend& backend);

}  // namespace nibble
