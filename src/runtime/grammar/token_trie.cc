#include "runtime/grammar/token_trie.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "model/tokenizer/byte_level.h"

namespace nibble::grammar {
namespace {

constexpr std::size_t kLongest = 65535;
constexpr std::string_view kReplacement = "\ufffd";

// A token that something can follow: its text alone, and a text that begins with it.
struct Anchor {
  std::int32_t id = 0;
  std::string text;
};

std::optional<Anchor> find_anchor(const Tokenizer& tokenizer) {
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.is_special(id)) continue;
    std::string text = tokenizer.decode({id});
    const bool letter = text.size() == 1 && text[0] >= 'a' && text[0] <= 'z';
    if (letter && tokenizer.decode({id, id}) == text + text) return Anchor{id, std::move(text)};
  }
  return std::nullopt;
}

std::string bytes_of(const Tokenizer& tokenizer, const Anchor& anchor, std::int32_t id) {
  if (tokenizer.is_special(id)) return "";
  const std::string piece = tokenizer.piece(id);
  const std::string both = tokenizer.decode({anchor.id, id});
  if (!both.starts_with(anchor.text)) return "";
  std::string text = both.substr(anchor.text.size());
  if (text.find(kReplacement) == std::string::npos) return text;
  // Part of a character: the piece spells it in one of two ways.
  if (const auto byte = byte_of(piece)) return std::string(1, *byte);
  std::string spelled;
  append_spelled_bytes(piece, spelled);
  return spelled == piece ? "" : spelled;
}

}  // namespace

TokenTrie::TokenTrie(std::vector<std::string> texts) : texts_(std::move(texts)) {
  std::vector<std::int32_t> order;
  for (std::size_t id = 0; id < texts_.size(); ++id) {
    if (texts_[id].size() > kLongest) texts_[id].clear();
    if (!texts_[id].empty()) order.push_back(static_cast<std::int32_t>(id));
  }
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    const int difference = text(a).compare(text(b));
    return difference != 0 ? difference < 0 : a < b;
  });
  std::vector<std::int32_t> path;  // nodes from the first byte to the last one added
  const auto close = [&](std::size_t depth) {
    for (; path.size() > depth; path.pop_back()) {
      nodes_[static_cast<std::size_t>(path.back())].after =
          static_cast<std::int32_t>(nodes_.size());
    }
  };
  std::string_view before;
  for (const std::int32_t id : order) {
    const std::string_view one = text(id);
    const auto common = static_cast<std::size_t>(
        std::mismatch(one.begin(), one.end(), before.begin(), before.end()).first - one.begin());
    close(common);
    for (std::size_t i = common; i < one.size(); ++i) {
      path.push_back(static_cast<std::int32_t>(nodes_.size()));
      const auto count = static_cast<std::int32_t>(tokens_.size());
      nodes_.push_back(
          {static_cast<std::uint8_t>(one[i]), static_cast<std::uint16_t>(i + 1), 0, count, count});
    }
    tokens_.push_back(id);
    ++nodes_[static_cast<std::size_t>(path.back())].last;
    depth_ = std::max(depth_, std::ssize(one));
    before = one;
  }
  close(0);
}

std::vector<std::string> token_bytes(const Tokenizer& tokenizer) {
  std::vector<std::string> bytes(static_cast<std::size_t>(tokenizer.vocab_size()));
  const auto anchor = find_anchor(tokenizer);
  if (!anchor) return bytes;
  for (std::size_t id = 0; id < bytes.size(); ++id) {
    bytes[id] = bytes_of(tokenizer, *anchor, static_cast<std::int32_t>(id));
  }
  return bytes;
}

std::vector<bool> changed_at_start(const Tokenizer& tokenizer,
                                   const std::vector<std::string>& bytes) {
  std::vector<bool> changed(bytes.size());
  for (std::size_t id = 0; id < bytes.size(); ++id) {
    if (bytes[id].empty() || bytes[id].front() != ' ') continue;
    changed[id] = !tokenizer.decode({static_cast<std::int32_t>(id)}).starts_with(' ');
  }
  return changed;
}

}  // namespace nibble::grammar
