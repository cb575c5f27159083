#include "model/tokenizer/precompiled.h"

#include <utf8proc.h>

#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "model/tokenizer/unicode.h"

namespace nibble {
namespace {

// Fields of a darts-clone unit.
bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
std::uint32_t value_of(std::uint32_t unit) { return unit & 0x7fffffffu; }
std::uint32_t label_of(std::uint32_t unit) { return unit & 0x800000ffu; }
std::uint32_t offset_of(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

}  // namespace

PrecompiledMap::PrecompiledMap(std::string_view blob, std::string_view what) {
  std::uint32_t trie_bytes = 0;
  if (blob.size() > sizeof trie_bytes) std::memcpy(&trie_bytes, blob.data(), sizeof trie_bytes);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes >= blob.size() - sizeof trie_bytes) {
    fail(ErrorKind::kCorrupt, "{}: precompiled character map of {} bytes is truncated", what,
         blob.size());
  }
  units_.resize(trie_bytes / 4);
  std::memcpy(units_.data(), blob.data() + sizeof trie_bytes, trie_bytes);
  replacements_ = blob.substr(sizeof trie_bytes + trie_bytes);
  check(what);
}

// Walks the whole trie once, so that look-ups need no bounds checks of their own.
void PrecompiledMap::check(std::string_view what) const {
  const auto corrupt = [&](const char* why) {
    fail(ErrorKind::kCorrupt, "{}: precompiled character map {}", what, why);
  };
  if (replacements_.back() != '\0') corrupt("lacks its end");
  std::vector<bool> seen(units_.size());
  std::vector<std::uint32_t> open = {0};
  while (!open.empty()) {
    const std::uint32_t position = open.back();
    open.pop_back();
    const std::uint32_t base = position ^ offset_of(units_[position]);
    // Any byte may follow, so the whole block of 256 must exist.
    if ((std::uint64_t{base} | 0xffu) >= units_.size()) corrupt("points outside of itself");
    if (position != 0 && has_leaf(units_[position])) {
      const std::uint32_t value = value_of(units_[base]);
      if (value >= replacements_.size()) corrupt("points behind its replacements");
      if (!is_valid_utf8(replacements_.c_str() + value)) corrupt("maps to invalid UTF-8");
    }
    for (std::uint32_t byte = 1; byte < 256; ++byte) {
      const std::uint32_t child = base ^ byte;
      if (label_of(units_[child]) != byte || seen[child]) continue;
      seen[child] = true;
      open.push_back(child);
    }
  }
}

std::optional<std::string_view> PrecompiledMap::find_shortest(std::string_view text) const {
  std::uint32_t position = offset_of(units_[0]);
  for (const char c : text) {
    const std::uint32_t byte = static_cast<unsigned char>(c);
    if (byte == 0) break;
    position ^= byte;
    const std::uint32_t unit = units_[position];
    if (label_of(unit) != byte) break;
    position ^= offset_of(unit);
    if (has_leaf(unit)) {
      return std::string_view(replacements_.c_str() + value_of(units_[position]));
    }
  }
  return std::nullopt;
}

std::string PrecompiledMap::normalize(std::string_view text) const {
  constexpr std::size_t kMaxGraphemeBytes = 6;  // longer graphemes are never looked up whole
  std::string out;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = begin;
    auto c = static_cast<utf8proc_int32_t>(next_code_point(text, end));
    utf8proc_int32_t state = 0;
    while (end < text.size()) {
      std::size_t after = end;
      const auto next = static_cast<utf8proc_int32_t>(next_code_point(text, after));
      if (utf8proc_grapheme_break_stateful(c, next, &state)) break;
      c = next;
      end = after;
    }
    const std::string_view grapheme = text.substr(begin, end - begin);
    begin = end;
    if (grapheme.size() < kMaxGraphemeBytes) {
      if (const auto replacement = find_shortest(grapheme)) {
        out += *replacement;
        continue;
      }
    }
    for (std::size_t i = 0; i < grapheme.size();) {
      const std::string_view character = grapheme.substr(i, utf8_length(grapheme[i]));
      out += find_shortest(character).value_or(character);
      i += character.size();
    }
  }
  return out;
}

}  // namespace nibble
