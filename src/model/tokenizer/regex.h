// Regular expressions of tokenizer files, which are written for Oniguruma, run by PCRE2.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace nibble {

// Immutable and thread-safe. Text must be valid UTF-8. A pattern that PCRE2 cannot compile or that
// means something else there is kUnsupported; matching that needs more steps or memory than a
// bound proportional to the text is kUnsupported too (catastrophic backtracking).
class Regex {
 public:
  // `what` names the pattern's place in messages.
  Regex(std::string_view pattern, std::string_view what);

  // Calls found(begin, end) for each match, from left to right, without overlap.
  void each_match(std::string_view text,
                  const std::function<void(std::size_t begin, std::size_t end)>& found) const;

 private:
  std::shared_ptr<void> code_;  // pcre2_code
  std::string what_;
};

// The same language in PCRE2's syntax: nested character classes are flattened, and \s, \w, \h and
// \b mean what they mean in Oniguruma.
std::string pcre2_pattern(std::string_view oniguruma, std::string_view what);

}  // namespace nibble
