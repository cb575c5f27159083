// The tokenizer of a GGUF file as the documents of a Hugging Face directory. Source:
// llama.cpp, src/llama-vocab.cpp and gguf-py/gguf/vocab.py.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace nibble {

// tokenizer.json and tokenizer_config.json (which holds the chat template too); nothing when the
// file has no vocabulary. kCorrupt for a damaged one, kUnsupported for kinds that nibble has not.
std::optional<std::map<std::string, Json>> tokenizer_from_gguf(const Json& metadata,
                                                               std::string_view what);

// How words are cut before byte-pair encoding, by the names of `tokenizer.ggml.pre`.
struct GgufPreType {
  std::vector<std::string_view> names;
  std::vector<std::string_view> patterns;  // one after the other, matches and gaps stand alone
  bool ignore_merges = false;              // words that are tokens are taken whole
  bool add_bos = false;                    // text begins with BOS unless a key says otherwise
  // False: characters as they are, spaces as marks, and bytes where a character is no token.
  bool byte_level = true;
};
const std::vector<GgufPreType>& gguf_pre_types();

}  // namespace nibble
