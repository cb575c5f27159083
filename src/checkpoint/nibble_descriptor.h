// Weight descriptors as JSON, for the "formats" of quant_method "nibble" (docs/formats.md).
#pragma once

#include <string>

#include "base/json.h"
#include "formats/format.h"

namespace nibble {

// {"element": {"kind": "int", "bits": 4}, "scheme": {"granularity": "group", "group": 128,
//  "symmetric": false, "scale_type": "F16"}}
Json to_json(const WeightDescriptor& descriptor);

// kCorrupt, naming `what`, for missing, unknown or ill-typed members; limits are make_format()'s.
WeightDescriptor descriptor_from_json(const Json& json, const std::string& what);

}  // namespace nibble
