#include "model/tokenizer/added_tokens.h"

#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

// Where the character before `at` begins; at > 0.
std::size_t previous_character(std::string_view text, std::size_t at) {
  do {
    --at;
  } while ((static_cast<unsigned char>(text[at]) & 0xc0) == 0x80);
  return at;
}

bool inside_word(std::string_view text, std::size_t begin, std::size_t end) {
  if (begin > 0) {
    std::size_t before = previous_character(text, begin);
    if (is_word_character(next_code_point(text, before))) return true;
  }
  return end < text.size() && is_word_character(next_code_point(text, end));
}

std::size_t skip_spaces_back(std::string_view text, std::size_t at, std::size_t stop) {
  while (at > stop) {
    const std::size_t before = previous_character(text, at);
    std::size_t i = before;
    if (!is_whitespace(next_code_point(text, i))) break;
    at = before;
  }
  return at;
}

std::size_t skip_spaces(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    std::size_t after = at;
    if (!is_whitespace(next_code_point(text, after))) break;
    at = after;
  }
  return at;
}

}  // namespace

AddedToken parse_added_token(const Json& json, std::int64_t id, std::string_view what) {
  AddedToken token;
  token.id = id;
  token.content = string_field(json, "content", what);
  token.special = bool_field_or(json, "special", false, what);
  token.single_word = bool_field_or(json, "single_word", false, what);
  token.lstrip = bool_field_or(json, "lstrip", false, what);
  token.rstrip = bool_field_or(json, "rstrip", false, what);
  token.normalized = bool_field_or(json, "normalized", !token.special, what);
  return token;
}

void TokenFinder::add(std::string_view key, const AddedToken& token) {
  if (key.empty()) return;
  trie_.insert(key, static_cast<std::int32_t>(tokens_.size()));
  tokens_.push_back(token);
}

std::vector<TextSegment> TokenFinder::segments(std::string_view text, bool with_special) const {
  std::vector<TextSegment> out;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size() && !tokens_.empty();) {
    const Trie::Match match = trie_.longest(text.substr(at));
    if (match.length == 0) {
      at += utf8_length(text[at]);
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(match.value)];
    std::size_t begin = at;
    std::size_t end = at + match.length;
    at = end;
    if (token.special && !with_special) continue;
    if (token.single_word && inside_word(text, begin, end)) continue;
    if (token.lstrip) begin = skip_spaces_back(text, begin, done);
    if (token.rstrip) at = end = skip_spaces(text, end);
    if (begin > done) out.push_back({done, begin, TextSegment::kText});
    out.push_back({begin, end, static_cast<std::int32_t>(token.id)});
    done = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), TextSegment::kText});
  return out;
}

}  // namespace nibble
