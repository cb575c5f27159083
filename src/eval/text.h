// Text files as token ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "model/tokenizer/tokenizer.h"

namespace nibble {

// The whole file tokenized once, with the special tokens (a leading BOS, say) that the tokenizer
// adds to any text. kCorrupt when the file cannot be read, kUsage when it is not valid UTF-8.
std::vector<std::int32_t> read_text_ids(const Tokenizer& tokenizer,
                                        const std::filesystem::path& path);

}  // namespace nibble
