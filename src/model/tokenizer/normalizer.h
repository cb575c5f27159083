// Rewriting text before it is cut into words ("normalizer" of tokenizer.json).
#pragma once

#include <functional>
#include <string>

#include "base/json.h"

namespace nibble {

// Changes valid UTF-8 in place and leaves it valid. Thread-safe.
using Normalizer = std::function<void(std::string& text)>;

// null gives one that changes nothing. kUnsupported for types that nibble does not know.
Normalizer make_normalizer(const Json& json);

}  // namespace nibble
