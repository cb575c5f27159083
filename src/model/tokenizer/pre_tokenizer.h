// Cutting text into words ("pre_tokenizer" of tokenizer.json).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"

namespace nibble {

struct Word {
  std::string text;  // never empty
  bool first;        // starts where the whole text starts
};

// Cuts every word further. Thread-safe.
using PreTokenizer = std::function<void(std::vector<Word>& words)>;

// null gives one that changes nothing. kUnsupported for types that nibble does not know.
PreTokenizer make_pre_tokenizer(const Json& json);

// The field of Metaspace that says when U+2581 goes in front; the pre-tokenizer and the decoder
// share it. "always", "first" or "never", from `prepend_scheme` or the older `add_prefix_space`.
std::string metaspace_scheme(const Json& json, std::string_view what);

}  // namespace nibble
