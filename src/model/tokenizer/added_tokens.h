// Tokens that are cut out of the text before anything else happens to it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "model/tokenizer/trie.h"

namespace nibble {

struct AddedToken {
  std::int64_t id = 0;
  std::string content;
  bool special = false;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the spaces before it
  bool rstrip = false;       // takes the spaces after it
  bool normalized = false;   // looked for in the normalized text
};

// An entry of "added_tokens"; `id` stands beside it.
AddedToken parse_added_token(const Json& json, std::int64_t id, std::string_view what);

struct TextSegment {
  static constexpr std::int32_t kText = -1;
  std::size_t begin;
  std::size_t end;
  std::int32_t id;  // kText: no token
};

// Finds tokens of one list, from left to right, the longest at each place. Immutable, thread-safe.
class TokenFinder {
 public:
  // key is the spelling to look for; an empty one is ignored.
  void add(std::string_view key, const AddedToken& token);

  // Covers the text; no segment is empty.
  std::vector<TextSegment> segments(std::string_view text, bool with_special) const;

 private:
  Trie trie_;
  std::vector<AddedToken> tokens_;
};

}  // namespace nibble
