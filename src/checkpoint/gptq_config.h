// The config of GPTQ checkpoints: "quantization_config", or quantize_config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/name_pattern.h"

namespace nibble {

struct GptqArgs {
  int bits = 4;
  std::int64_t group = 0;  // 0: a whole row; never more than 2^40
  bool symmetric = true;
};

// Immutable and thread-safe.
class GptqConfig {
 public:
  // kCorrupt for keys of a wrong type, kUnsupported for widths and layouts that nibble does not
  // read; `what` names the checkpoint.
  GptqConfig(const Json& config, const std::string& what);

  // Those of the first "dynamic" pattern that matches, or of the whole model.
  GptqArgs args(const std::string& module) const;
  // 1: stored zero points are one less than meant. 2: as they are.
  int version() const { return version_; }

 private:
  void add_dynamic(const Json& dynamic);

  std::string what_;
  GptqArgs args_;
  int version_ = 1;
  std::vector<std::pair<NamePattern, GptqArgs>> overrides_;
};

}  // namespace nibble
