// The texts of a vocabulary's tokens as a prefix tree, laid out for one walk through all of it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/tokenizer.h"

namespace nibble::grammar {

// Immutable and thread-safe.
class TokenTrie {
 public:
  // Nodes in the order of a depth-first walk, the root left out.
  struct Node {
    std::uint8_t byte = 0;
    std::uint16_t depth = 0;           // 1 for a first byte
    std::int32_t after = 0;            // the next node that does not lie below this one
    std::int32_t first = 0, last = 0;  // tokens()[first, last) are those of exactly this text
  };

  // texts[id]: what the token adds to a text; empty for tokens that may not be used. Longer ones
  // than 65,535 bytes are left out.
  explicit TokenTrie(std::vector<std::string> texts);

  std::span<const Node> nodes() const { return nodes_; }
  std::span<const std::int32_t> tokens() const { return tokens_; }
  std::int64_t vocab() const { return static_cast<std::int64_t>(texts_.size()); }
  std::string_view text(std::int32_t id) const { return texts_[static_cast<std::size_t>(id)]; }
  std::int64_t depth() const { return depth_; }  // the greatest

 private:
  std::vector<std::string> texts_;
  std::vector<Node> nodes_;
  std::vector<std::int32_t> tokens_;
  std::int64_t depth_ = 0;
};

// What each token adds to a text that has begun, in bytes (which need not be whole characters).
// Special tokens and those whose bytes cannot be told are empty.
std::vector<std::string> token_bytes(const Tokenizer& tokenizer);
// Tokens that add something else at the start of a text (a space that the decoder drops there).
std::vector<bool> changed_at_start(const Tokenizer& tokenizer,
                                   const std::vector<std::string>& bytes);

}  // namespace nibble::grammar
