// A byte-level BPE tokenizer of a given vocabulary size that knows no language.
#pragma once

#include <cstdint>

#include "base/json.h"

namespace nibble {

inline constexpr std::int64_t kSynthSpecials = 3;  // <unk> 0, <s> 1, </s> 2
inline constexpr std::int64_t kMinSynthVocab = kSynthSpecials + 256;

// tokenizer.json: the special tokens, the 256 bytes, and as many merged pieces as fill the
// vocabulary, common letters first. It encodes any text, <s> in front, and decodes it back.
Json synth_tokenizer(std::int64_t vocab);

// tokenizer_config.json for it.
Json synth_tokenizer_config(std::int64_t max_length);

}  // namespace nibble
