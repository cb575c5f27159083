#include "runtime/grammar/expression.h"

#include <algorithm>
#include <utility>

#include "model/tokenizer/unicode.h"

namespace nibble::grammar {

Expr sequence(std::vector<Expr> parts) {
  Expr expr;
  expr.parts = std::move(parts);
  return expr;
}

Expr choice(std::vector<Expr> parts) {
  Expr expr;
  expr.kind = Expr::Kind::kChoice;
  expr.parts = std::move(parts);
  return expr;
}

Expr chars(CharSet set) {
  Expr expr;
  expr.kind = Expr::Kind::kChars;
  expr.chars = normalized(std::move(set));
  return expr;
}

Expr repeat(Expr body, std::int64_t least, std::int64_t most) {
  Expr expr;
  expr.kind = Expr::Kind::kRepeat;
  expr.parts.push_back(std::move(body));
  expr.least = least;
  expr.most = most;
  return expr;
}

Expr optional(Expr body) { return repeat(std::move(body), 0, 1); }

Expr rule(std::int32_t id) {
  Expr expr;
  expr.kind = Expr::Kind::kRule;
  expr.rule = id;
  return expr;
}

Expr literal(std::string_view text) {
  Expr expr;
  for (const char32_t c : characters_of(text)) expr.parts.push_back(chars({{c, c}}));
  return expr;
}

std::u32string characters_of(std::string_view utf8) {
  return to_utf32(replace_each_invalid_byte(utf8));
}

CharSet normalized(CharSet set) {
  constexpr CharRange kSurrogates = {0xD800, 0xDFFF};
  CharSet cut;
  for (CharRange range : set) {
    range.last = std::min(range.last, kLastCharacter);
    if (range.first < kSurrogates.first && range.last >= kSurrogates.first) {
      cut.push_back({range.first, static_cast<char32_t>(kSurrogates.first - 1)});
    } else if (range.last < kSurrogates.first) {
      cut.push_back(range);
    }
    if (range.last > kSurrogates.last) {
      cut.push_back(
          {std::max(range.first, static_cast<char32_t>(kSurrogates.last + 1)), range.last});
    }
  }
  std::erase_if(cut, [](const CharRange& range) { return range.first > range.last; });
  std::sort(cut.begin(), cut.end(),
            [](const CharRange& a, const CharRange& b) { return a.first < b.first; });
  CharSet merged;
  for (const CharRange& range : cut) {
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

CharSet complement(const CharSet& set) {
  CharSet rest;
  char32_t next = 0;
  for (const CharRange& range : normalized(set)) {
    if (range.first > next) rest.push_back({next, static_cast<char32_t>(range.first - 1)});
    next = range.last + 1;
  }
  if (next <= kLastCharacter) rest.push_back({next, kLastCharacter});
  return normalized(rest);
}

std::int32_t RuleSet::add(std::string name, Expr body) {
  names.push_back(std::move(name));
  bodies.push_back(std::move(body));
  return static_cast<std::int32_t>(bodies.size()) - 1;
}

}  // namespace nibble::grammar
