// How the quantized parts of a loaded model are computed: truly on low-bit codes, or simulated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/model.h"

namespace nibble {

struct ExecutedPart {
  std::string part;          // "weights", "activations", "embeddings"
  std::string format;        // in the grammar of formats
  std::int64_t modules = 0;  // that have it
  // Weights and embeddings: kept as codes. Activations: the products are of low-bit codes; if not,
  // inputs are rounded and multiplied in float32 (the same numbers, at the speed of float32).
  bool is_true = true;
};

// The parts that are no plain floats, in the order of the struct's comment. An entry for each
// format and way.
std::vector<ExecutedPart> executed_parts(const Model& model);

}  // namespace nibble
