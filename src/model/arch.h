// The registry of architectures: config.json -> ModelSpec.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "model/spec.h"

namespace nibble {

struct Arch {
  const char* name;                      // "llama": what `list archs` shows
  std::vector<std::string> model_types;  // values of config.json's model_type
  ModelSpec (*build)(const Json& config);
};

// In the order of registry.def.
const std::vector<Arch>& archs();

// Finds the architecture by model_type and builds its spec. kCorrupt for missing, absurd or
// contradicting values (zero or huge sizes, heads that do not divide, ...); kUnsupported for
// unknown model types and for values of known keys that nibble cannot compute.
ModelSpec build_spec(const Json& config);

}  // namespace nibble
