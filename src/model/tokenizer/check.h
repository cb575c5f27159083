// Checks of arguments that every tokenizer makes.
#pragma once

#include <cstdint>
#include <string_view>

#include "model/tokenizer/tokenizer.h"

namespace nibble {

// kUsage unless the text is valid UTF-8 of at most 1 GiB.
void check_text(std::string_view text);

// kUsage unless the id is in the vocabulary.
void check_id(const Tokenizer& tokenizer, std::int32_t id);

}  // namespace nibble
