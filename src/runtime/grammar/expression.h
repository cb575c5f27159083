// What a text may look like: expressions over characters, and named rules that refer to each other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::grammar {

constexpr char32_t kLastCharacter = 0x10FFFF;

struct CharRange {
  char32_t first = 0;
  char32_t last = 0;  // inclusive
};
using CharSet = std::vector<CharRange>;

struct Expr {
  enum class Kind {
    kSequence,  // parts one after the other; none: the empty text
    kChoice,    // one of the parts; none: nothing matches
    kChars,     // one character of `chars`
    kRepeat,    // parts[0], `least` to `most` times
    kRule,      // what rule `rule` says
  };
  static constexpr std::int64_t kUnbounded = -1;

  Kind kind = Kind::kSequence;
  std::vector<Expr> parts;
  CharSet chars;
  std::int64_t least = 0;
  std::int64_t most = 0;  // or kUnbounded
  std::int32_t rule = -1;
};

Expr sequence(std::vector<Expr> parts);
Expr choice(std::vector<Expr> parts);
Expr chars(CharSet set);
Expr repeat(Expr body, std::int64_t least, std::int64_t most);
Expr optional(Expr body);
Expr rule(std::int32_t id);
// The characters of valid UTF-8 (others become U+FFFD) one after the other.
Expr literal(std::string_view text);
std::u32string characters_of(std::string_view utf8);

// Sorted, without overlap, without surrogates (which no UTF-8 spells).
CharSet normalized(CharSet set);
CharSet complement(const CharSet& set);

struct RuleSet {
  std::vector<std::string> names;  // for messages
  std::vector<Expr> bodies;
  std::int32_t root = 0;

  std::int32_t add(std::string name, Expr body = {});
};

}  // namespace nibble::grammar
