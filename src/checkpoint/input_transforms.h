// "transform_config" of compressed-tensors' quantization_config, and of nibble's own: Hadamard
// matrices that the inputs of modules are multiplied by while the model runs.
//
//   {"config_groups": {NAME: {"type": "hadamard", "head_dim": 512, "randomize": false,
//     "apply": [{"targets": ["re:^model\\.layers\\.\\d+\\.mlp\\.down_proj$"], "location":
//     "input"}]}}}
//
// The matrix is Sylvester's over the root of its size, for "head_dim" channels at a time, or for
// all where that is absent. Entries for weights ("weight_input", "weight_output") have been folded
// into what is stored; a pair for queries and keys ("q_attn", "k_cache") cancels in their products.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/name_pattern.h"

namespace nibble {

// Immutable and thread-safe.
class InputTransforms {
 public:
  // Of a quantization_config, which may have no transform_config. kCorrupt when it is damaged,
  // kUnsupported for what nibble cannot compute; `what` names the file in errors.
  InputTransforms(const Json& quantization_config, const std::string& what);

  // As WeightSource::input_hadamard().
  std::int64_t block(const std::string& module) const;

 private:
  struct Entry {
    std::vector<NamePattern> targets, ignore;
    std::int64_t block = 0;
  };
  void add_scheme(const Json& scheme, const std::string& what);

  std::vector<Entry> entries_;
};

// The transform_config of a model whose modules have such blocks; `all` are its linear modules,
// those without blocks included.
Json transform_config(const std::map<std::string, std::int64_t>& blocks,
                      const std::vector<std::string>& all);

}  // namespace nibble
