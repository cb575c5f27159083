// From pieces back to text ("decoder" of tokenizer.json).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"

namespace nibble {

// Rewrites the pieces (valid UTF-8) of a sequence; joined, they are its text. Thread-safe.
using Decoder = std::function<void(std::vector<std::string>& pieces)>;

// null gives one that sets spaces between the pieces. kUnsupported for types that nibble does not
// know.
Decoder make_decoder(const Json& json);

}  // namespace nibble
