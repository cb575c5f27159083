// What a checkpoint becomes as a GGUF file: the type of each tensor there. Internal to checkpoint/.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/container/gguf.h"
#include "checkpoint/convert.h"
#include "checkpoint/gguf_keys.h"
#include "checkpoint/gguf_layout.h"

namespace nibble {

struct PlannedTensor {
  GgufPlace place;
  Shape shape;  // there
  GgufType type;
  bool quantized = false;  // in the source
  bool rounded = false;    // its values may change
};

struct GgufPlan {
  std::vector<PlannedTensor> tensors;
  std::map<std::string, float> scales;  // of weights in NVFP4, by the name of the weight
  std::uint32_t file_type = 0;          // general.file_type
};

// Whether a preset or a format is named.
bool asks_for_types(const ConvertOptions& options);

// One weight, [out, in], whatever the source has.
QuantTensor gguf_weight(const Checkpoint& source, const std::string& module, GgufChange change);

// Errors as convert_to_gguf(). The report gets what is left out, the quantized modules, and those
// whose inputs are no longer rounded.
GgufPlan plan_gguf(const Checkpoint& source, const ConvertOptions& options, const GgufKeys& keys,
                   ConvertReport& report, const ProgressSink& progress);

}  // namespace nibble
