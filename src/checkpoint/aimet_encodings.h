// What a checkpoint's numbers mean, as AIMET's quantization simulation writes it: a JSON file of
// encodings, which its other tools and Qualcomm's converters read beside 16-bit weights.
//
//   x = scale * (q + offset), q = 0 ... 2^bits - 1; offset is minus the zero point
//
// Schemas 0.6.1 (maps by name), 1.0.0 (lists) and 2.0.0 (ONNX's QuantizeLinear: signed codes where
// there is no zero point).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/weight_source.h"

namespace nibble {

enum class EncodingsSchema { k061, k100, k200 };
// "0.6.1", "1.0.0", "2.0.0"; kUsage for any other.
EncodingsSchema parse_encodings_schema(std::string_view text);

struct EncodingsFile {
  std::string json;
  std::vector<std::string> plain;  // modules whose weights are no integers
  std::vector<std::string>
      dynamic;  // those whose inputs are rounded under scales found at run time
};

// Of the weights "<module>.weight" and the inputs ("<module>.input.0"; under 0.6.1 in the map of
// the module) of some modules. kUnsupported, naming the module, for what the schema cannot say:
// quantized weights that are no affine integers, blocks of rows, and groups under 0.6.1.
EncodingsFile aimet_encodings(const WeightSource& source, const std::vector<std::string>& modules,
                              EncodingsSchema schema);

}  // namespace nibble
