// How a tokenizer.json cuts words, in the terms of GGUF's `pre` types.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace nibble {

// Appends the pattern that one pre-tokenizer cuts by, if it cuts. kUnsupported for those that no
// pattern can say.
void add_pre_patterns(const Json& pre_tokenizer, std::vector<std::string>& patterns);

// The `pre` type with these patterns; empty when there is none.
std::string_view pre_type_of(const std::vector<std::string>& patterns, bool ignore_merges);

}  // namespace nibble
