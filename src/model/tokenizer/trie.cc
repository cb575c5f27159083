#include "model/tokenizer/trie.h"

#include "base/error.h"

namespace nibble {

void Trie::insert(std::string_view key, std::int32_t value) {
  if (key.size() > kMaxKeyBytes) {
    fail(ErrorKind::kUnsupported, "tokenizer: token of {} bytes; the limit is {}", key.size(),
         kMaxKeyBytes);
  }
  std::uint32_t node = kRoot;
  for (const char byte : key) {
    const auto fresh = static_cast<std::uint32_t>(values_.size());
    const std::uint64_t edge = std::uint64_t{node} << 8 | static_cast<unsigned char>(byte);
    const auto [it, added] = edges_.emplace(edge, fresh);
    if (added) values_.push_back(kNoValue);
    node = it->second;
  }
  values_[node] = value;
}

Trie::Match Trie::longest(std::string_view text, std::uint32_t node) const {
  Match best;
  for (std::size_t i = 0; i < text.size() && step(node, text[i]); ++i) {
    if (values_[node] != kNoValue) best = {i + 1, values_[node]};
  }
  return best;
}

}  // namespace nibble
