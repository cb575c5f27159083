#include "runtime/grammar/parse_regex.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"

namespace nibble::grammar {
namespace {

constexpr std::int64_t kMostRepeats = 65535;
constexpr int kDeepest = 128;

const CharSet kDigits = {{'0', '9'}};
const CharSet kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CharSet kSpace = {{'\t', '\r'}, {' ', ' '}};
// What some dialect takes for a digit, a word character or a space. The first digit beyond ASCII
// is U+0660.
const CharSet kAnyDigits = {{'0', '9'}, {0x660, kLastCharacter}};
const CharSet kAnyWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}, {0x80, kLastCharacter}};
const CharSet kAnySpace = {{'\t', '\r'},     {0x1C, ' '},      {0x85, 0x85},     {0xA0, 0xA0},
                           {0x1680, 0x1680}, {0x180E, 0x180E}, {0x2000, 0x200B}, {0x2028, 0x2029},
                           {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const CharSet kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x85, 0x85}, {0x2028, 0x2029}};

class RegexParser {
 public:
  RegexParser(std::string_view pattern, RegexUse use) : text_(characters_of(pattern)), use_(use) {}

  Expr parse() {
    Expr expr = alternatives(0);
    if (at_ < text_.size()) refuse("a ')' that closes nothing");
    return expr;
  }

 private:
  [[noreturn]] void refuse(const char* what) const {
    fail(ErrorKind::kUsage, "regular expression, character {}: {}", at_ + 1, what);
  }
  bool more() const { return at_ < text_.size(); }
  bool sees(char32_t c) const { return more() && text_[at_] == c; }
  bool take(char32_t c) {
    if (!sees(c)) return false;
    ++at_;
    return true;
  }
  char32_t next() {
    if (!more()) refuse("it ends too early");
    return text_[at_++];
  }

  Expr alternatives(int depth) {
    if (depth > kDeepest) refuse("groups are nested too deeply");
    std::vector<Expr> all;
    do {
      all.push_back(branch(depth));
    } while (take('|'));
    return choice(std::move(all));
  }

  // Anchors stand at the ends of the branches of the outermost level.
  Expr branch(int depth) {
    std::vector<Expr> parts;
    bool first_anchored = false;
    while (take('^')) {
      if (depth > 0) refuse("'^' inside a group");
      first_anchored = true;
    }
    bool last_anchored = false;
    while (more() && !sees('|') && !sees(')')) {
      if (take('$')) {
        if (depth > 0) refuse("'$' inside a group");
        last_anchored = true;
        continue;
      }
      if (last_anchored) refuse("'$' before the end");
      parts.push_back(quantified(depth));
    }
    if (depth == 0 && use_ == RegexUse::kInside) {
      const Expr anything = repeat(chars({{0, kLastCharacter}}), 0, Expr::kUnbounded);
      if (!first_anchored) parts.insert(parts.begin(), anything);
      if (!last_anchored) parts.push_back(anything);
    }
    return sequence(std::move(parts));
  }

  Expr quantified(int depth) {
    Expr expr = atom(depth);
    int quantifiers = 0;
    while (const auto range = quantifier()) {
      if (++quantifiers > 1) refuse("a quantifier of a quantifier");
      expr = repeat(std::move(expr), range->first, range->second);
      if (take('+')) refuse("possessive quantifiers are not supported");
      take('?');  // lazy: the same texts
    }
    return expr;
  }

  std::optional<std::pair<std::int64_t, std::int64_t>> quantifier() {
    if (take('*')) return std::pair(std::int64_t{0}, Expr::kUnbounded);
    if (take('+')) return std::pair(std::int64_t{1}, Expr::kUnbounded);
    if (take('?')) return std::pair(std::int64_t{0}, std::int64_t{1});
    if (!sees('{')) return std::nullopt;
    const std::size_t start = at_++;
    const auto least = number();
    std::optional<std::int64_t> most = least;
    if (take(',')) most = sees('}') ? Expr::kUnbounded : number();
    if (!least || !most || !take('}')) {  // then it is an ordinary character
      at_ = start;
      return std::nullopt;
    }
    if (*most != Expr::kUnbounded && *most < *least) refuse("a repetition {m,n} with m above n");
    return std::pair(*least, *most);
  }

  std::optional<std::int64_t> number() {
    const std::size_t start = at_;
    std::int64_t value = 0;
    while (more() && text_[at_] >= '0' && text_[at_] <= '9') {
      value = value * 10 + static_cast<std::int64_t>(text_[at_++] - '0');
      if (value > kMostRepeats) refuse("a repetition of more than 65535");
    }
    if (at_ == start) return std::nullopt;
    return value;
  }

  Expr atom(int depth) {
    const char32_t c = next();
    switch (c) {
      case '(':
        return group(depth);
      case '[':
        return chars(char_class());
      case '.':
        return chars(complement(kLineEnds));
      case '\\':
        return chars(escape(false));
      case '*':
      case '+':
      case '?':
        refuse("a quantifier of nothing");
      case '^':
        refuse("'^' behind the beginning");
      default:
        return chars({{c, c}});
    }
  }

  Expr group(int depth) {
    if (take('?')) {
      const bool python = take('P');
      if (take('<')) {
        if (sees('=') || sees('!')) refuse("lookbehind is not supported");
        while (next() != '>') {
        }
      } else if (python || !take(':')) {
        refuse("lookahead, flags and conditions are not supported");
      }
    }
    Expr inside = alternatives(depth + 1);
    if (!take(')')) refuse("a '(' that nothing closes");
    return inside;
  }

  // The set behind a backslash. `inverted`: it stands in a negated class, where more must be in it.
  CharSet escape(bool inverted) {
    const char32_t c = next();
    switch (c) {
      case 'd':
        return inverted ? kAnyDigits : kDigits;
      case 'D':
        return complement(inverted ? kDigits : kAnyDigits);
      case 'w':
        return inverted ? kAnyWord : kWord;
      case 'W':
        return complement(inverted ? kWord : kAnyWord);
      case 's':
        return inverted ? kAnySpace : kSpace;
      case 'S':
        return complement(inverted ? kSpace : kAnySpace);
      default:
        break;
    }
    const char32_t one = escaped_character(c);
    return {{one, one}};
  }

  char32_t escaped_character(char32_t c) {
    constexpr std::pair<char, char> kNamed[] = {{'n', '\n'}, {'t', '\t'}, {'r', '\r'},
                                                {'f', '\f'}, {'v', '\v'}, {'0', '\0'}};
    for (const auto& [name, value] : kNamed) {
      if (c == static_cast<char32_t>(name)) return static_cast<char32_t>(value);
    }
    if (c == 'x') return hexadecimal(2);
    if (c == 'u' && take('{')) {
      char32_t value = 0;
      while (!take('}')) value = std::min<char32_t>(value * 16 + digit(), kLastCharacter);
      return value;
    }
    if (c == 'u') return hexadecimal(4);
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9');
    if (letter) refuse("this escape is not supported (\\b, \\p, back-references and the like)");
    return c;
  }

  char32_t digit() {
    const char32_t c = next();
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    refuse("a hexadecimal digit is missing");
  }

  char32_t hexadecimal(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i) value = value * 16 + digit();
    return value;
  }

  CharSet char_class() {
    const bool inverted = take('^');
    CharSet set;
    while (!take(']')) {
      const char32_t c = next();
      CharSet one = c == '\\' ? escape(inverted) : CharSet{{c, c}};
      const bool single = one.size() == 1 && one.front().first == one.front().last;
      const bool range = sees('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (single && range) {
        ++at_;
        const char32_t end = next();
        const CharSet last = end == '\\' ? escape(inverted) : CharSet{{end, end}};
        if (last.size() != 1 || last.front().first != last.front().last) {
          refuse("a range of a class that does not end with a character");
        }
        if (last.front().first < one.front().first) refuse("a range of a class that falls");
        one.front().last = last.front().first;
      }
      set.insert(set.end(), one.begin(), one.end());
    }
    return inverted ? complement(set) : set;
  }

  std::u32string text_;
  RegexUse use_;
  std::size_t at_ = 0;
};

}  // namespace

Expr parse_regex(std::string_view pattern, RegexUse use) {
  constexpr std::size_t kLongest = std::size_t{64} << 10;
  if (pattern.size() > kLongest) {
    fail(ErrorKind::kUsage, "regular expression: longer than {} bytes", kLongest);
  }
  return RegexParser(pattern, use).parse();
}

}  // namespace nibble::grammar
