// What normalizers, pre-tokenizers and decoders search for: a literal string or a regex.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "model/tokenizer/regex.h"

namespace nibble {

// Immutable and thread-safe.
class Pattern {
 public:
  // {"String": "..."} or {"Regex": "..."}.
  Pattern(const Json& json, std::string_view what);

  // Calls found(begin, end) for each match, from left to right, without overlap. An empty string
  // matches nothing.
  void each_match(std::string_view text,
                  const std::function<void(std::size_t begin, std::size_t end)>& found) const;

  // The text with every match replaced by `content`, taken literally.
  std::string replace(std::string_view text, std::string_view content) const;

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

// The text with every occurrence of `from` (not empty) replaced.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

}  // namespace nibble
