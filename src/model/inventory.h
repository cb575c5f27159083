// What a checkpoint holds, by module and in total, before anything is computed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/weight_source.h"
#include "model/spec.h"

namespace nibble {

class Backend;

struct ModuleRow {
  std::string module;
  std::int64_t layer = 0;
  std::string format;
  std::int64_t rows = 0, cols = 0;
  std::int64_t bytes = 0;  // all planes
};

struct Inventory {
  std::vector<ModuleRow> linears;  // of all blocks, in order; routers left out
  std::int64_t tensors = 0;        // stored tensors
  std::int64_t parameters = 0;     // of the model, whatever format they are stored in
  std::int64_t bytes = 0;          // of all stored tensors
  // Bits of everything stored for the blocks' linear layers over their number of weights; and of
  // the whole checkpoint over all its parameters.
  double bits_per_weight = 0;
  double bits_per_weight_total = 0;
};

Inventory take_inventory(const ModelSpec& spec, const WeightSource& source, Backend& backend);

}  // namespace nibble
