// The special tokens around a text ("post_processor" of tokenizer.json).
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "model/tokenizer/vocab.h"

namespace nibble {

// BOS or [CLS] before, EOS or [SEP] after.
struct PostProcessor {
  std::vector<std::int32_t> before;
  std::vector<std::int32_t> after;
};

// null adds nothing. kCorrupt when it names ids outside the vocabulary, kUnsupported for types that
// nibble does not know and templates that repeat the text.
PostProcessor make_post_processor(const Json& json, const Vocab& vocab);

}  // namespace nibble
