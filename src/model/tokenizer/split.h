// Cutting words at delimiters.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "model/tokenizer/pre_tokenizer.h"

namespace nibble {

enum class SplitBehavior {
  kRemoved,             // delimiters vanish
  kIsolated,            // every delimiter is a word
  kMergedWithPrevious,  // a delimiter ends the word before it
  kMergedWithNext,      // a delimiter begins the word after it
  kContiguous,          // neighbouring delimiters are one word
};

// kCorrupt for a name that the schema does not have.
SplitBehavior split_behavior(std::string_view name, std::string_view what);

struct Span {
  std::size_t begin;
  std::size_t end;
  bool delimiter;
};

// Appends the delimiters of `text`, from left to right; the gaps are filled in by split().
using DelimiterFinder = std::function<void(std::string_view text, std::vector<Span>& delimiters)>;

// With `invert`, what lies between the delimiters counts as the delimiter.
void split(std::vector<Word>& words, const DelimiterFinder& find, SplitBehavior behavior,
           bool invert = false);

}  // namespace nibble
