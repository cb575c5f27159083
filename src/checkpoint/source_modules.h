// What a checkpoint consists of, as conversions see it: modules with quantized weights, and
// tensors.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace nibble {

struct SourceModules {
  std::vector<std::string> quantized;  // modules
  std::vector<std::string> plain;      // tensors that belong to the weight of none of them
};
SourceModules list_modules(const Checkpoint& checkpoint);

// Whether the weight of a module is stored as something other than plain floats.
bool is_quantized(const Checkpoint& checkpoint, const std::string& module);

// "<module>.weight", "<module>.weight.<plane>", "<module>.qweight" ...: the module.
std::string module_of(const std::string& tensor);

// Whether a module is a table of vectors, as far as its name tells.
bool is_embedding(const std::string& module);

}  // namespace nibble
