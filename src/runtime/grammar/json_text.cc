#include "runtime/grammar/json_text.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "base/error.h"

namespace nibble::grammar {
namespace {

const CharSet kHex = {{'0', '9'}, {'A', 'F'}, {'a', 'f'}};
const CharSet kDecimal = {{'0', '9'}};
const CharSet kMustEscape = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};

Expr one(char32_t c) { return chars({{c, c}}); }

// How a string spells a character that may not stand there itself.
Expr escaped(char32_t c) {
  constexpr std::pair<char32_t, char> kShort[] = {
      {'"', '"'}, {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}};
  for (const auto& [what, letter] : kShort) {
    if (c == what) return literal(std::string("\\") + letter);
  }
  return literal(fmt::format("\\u{:04x}", static_cast<unsigned>(c)));
}

Expr encoded(const Expr& value) {
  if (value.kind == Expr::Kind::kChars) {
    CharSet plain = complement(value.chars);
    plain.insert(plain.end(), kMustEscape.begin(), kMustEscape.end());
    std::vector<Expr> all = {chars(complement(plain))};
    for (const CharRange& range : value.chars) {
      for (char32_t c = range.first; c <= std::min<char32_t>(range.last, '\\'); ++c) {
        if (c < 0x20 || c == '"' || c == '\\') all.push_back(escaped(c));
      }
    }
    return choice(std::move(all));
  }
  Expr copy = value;
  for (Expr& part : copy.parts) part = encoded(part);
  return copy;
}

Expr digits_of(std::string_view low, std::string_view high) {
  NIBBLE_CHECK(low.size() == high.size());
  if (low.empty()) return {};
  const auto count = static_cast<std::int64_t>(low.size());
  const auto all = [](std::string_view text, char digit) {
    return text.find_first_not_of(digit) == std::string_view::npos;
  };
  if (all(low, '0') && all(high, '9')) return repeat(chars(kDecimal), count, count);
  const auto first = static_cast<char32_t>(low.front());
  const auto last = static_cast<char32_t>(high.front());
  const std::string_view low_rest = low.substr(1);
  const std::string_view high_rest = high.substr(1);
  if (first == last) return sequence({one(first), digits_of(low_rest, high_rest)});
  std::vector<Expr> parts;
  const std::string nines(low_rest.size(), '9');
  const std::string zeros(low_rest.size(), '0');
  parts.push_back(sequence({one(first), digits_of(low_rest, nines)}));
  if (first + 1 < last) {
    parts.push_back(sequence({chars({{first + 1, last - 1}}), digits_of(zeros, nines)}));
  }
  parts.push_back(sequence({one(last), digits_of(zeros, high_rest)}));
  return choice(std::move(parts));
}

using Whole = std::int64_t;
constexpr Whole kLargest = 999'999'999'999'999'999;

// Numbers of low to high, both 0 or more, without leading zeros; no text when low > high.
Expr naturals(Whole low, Whole high) {
  std::vector<Expr> lengths;
  Whole power = 10;  // the first number with one digit more
  for (Whole from = low; from <= high;) {
    while (from >= power) power *= 10;
    const Whole to = std::min(high, power - 1);
    lengths.push_back(digits_of(std::to_string(from), std::to_string(to)));
    from = to + 1;
  }
  return choice(std::move(lengths));
}

Expr signed_range(Whole low, Whole high) {
  return choice({naturals(std::max<Whole>(low, 0), high),
                 sequence({one('-'), naturals(std::max<Whole>(1, -high), -low)})});
}

Whole bounded(double value) {
  return static_cast<Whole>(
      std::clamp(value, -static_cast<double>(kLargest) + 1e3, static_cast<double>(kLargest) - 1e3));
}

Whole least_whole(const NumberLimits& limits) {
  if (!limits.least) return -kLargest;
  const double up = std::ceil(*limits.least);
  return bounded(up) + (limits.least_excluded && up == *limits.least ? 1 : 0);
}

Whole most_whole(const NumberLimits& limits) {
  if (!limits.most) return kLargest;
  const double down = std::floor(*limits.most);
  return bounded(down) - (limits.most_excluded && down == *limits.most ? 1 : 0);
}

[[noreturn]] void refuse_empty() {
  fail(ErrorKind::kUsage, "JSON schema: no number that can be written lies between its limits");
}

// Limits may be beyond what is written at all.
void require_writable(const NumberLimits& limits) {
  constexpr double kEdge = 9e17;
  if (limits.least.value_or(0) > kEdge || limits.most.value_or(0) < -kEdge) refuse_empty();
}

Expr fraction(std::int64_t most) { return sequence({one('.'), repeat(chars(kDecimal), 1, most)}); }

// Numbers with a point whose digits before it leave no doubt that they lie between the limits.
void add_fractions(const NumberLimits& limits, std::vector<Expr>& all) {
  // Beyond this a double does not tell six digits behind the point apart.
  constexpr double kExact = 1e9;
  const double least = std::max(limits.least.value_or(-kExact), -kExact);
  const double most = std::min(limits.most.value_or(kExact), kExact);
  // n.ffffff lies in [n, n + 1), and -n.ffffff in (-(n + 1), -n].
  const auto first =
      bounded(std::floor(least)) + (least > std::floor(least) || limits.least_excluded ? 1 : 0);
  const auto last = bounded(std::floor(most)) - 1;
  all.push_back(sequence({naturals(std::max<Whole>(first, 0), last), fraction(6)}));
  const auto near =
      -(bounded(std::ceil(most)) - (most < std::ceil(most) || limits.most_excluded ? 1 : 0));
  const auto far = -bounded(std::ceil(least)) - 1;
  all.push_back(sequence({one('-'), naturals(std::max<Whole>(near, 0), far), fraction(6)}));
}

// Limits between two neighbouring whole numbers: a fixed number of digits behind the point.
Expr narrow_number(const NumberLimits& limits) {
  const double least = limits.least.value_or(0);
  const double most = limits.most.value_or(0);
  const bool negative = most <= 0;
  const double near = negative ? -most : least;
  const double far = negative ? -least : most;
  if (near > 1e9) refuse_empty();
  const double whole = std::floor(near);
  for (int digits = 1; digits <= 6; ++digits) {
    const double scale = std::pow(10.0, digits);
    Whole low = bounded(std::ceil((near - whole) * scale));
    Whole high = bounded(std::min(std::floor((far - whole) * scale), scale - 1));
    const auto value = [&](Whole n) {
      return std::stod(fmt::format("{}.{:0{}}", static_cast<Whole>(whole), n, digits));
    };
    const bool near_out = negative ? limits.most_excluded : limits.least_excluded;
    const bool far_out = negative ? limits.least_excluded : limits.most_excluded;
    if (low <= high && (near_out ? value(low) <= near : value(low) < near)) ++low;
    if (low <= high && (far_out ? value(high) >= far : value(high) > far)) --high;
    if (low > high) continue;
    const auto text = [&](Whole n) { return fmt::format("{:0{}}", n, digits); };
    return sequence({literal(fmt::format("{}{}.", negative ? "-" : "", static_cast<Whole>(whole))),
                     digits_of(text(low), text(high))});
  }
  refuse_empty();
}

// Names that begin alike, character by character.
struct NameTree {
  bool ends = false;
  std::map<char32_t, NameTree> next;
};

// What may follow a beginning so that the whole is none of the names; the closing quote included.
Expr off_the_tree(const NameTree& tree, const Expr& rest) {
  std::vector<Expr> all;
  CharSet taken = kMustEscape;
  for (const auto& [c, below] : tree.next) {
    taken.push_back({c, c});
    const bool plain = c >= 0x20 && c != '"' && c != '\\';
    if (plain) all.push_back(sequence({one(c), off_the_tree(below, rest)}));
  }
  // A character that no name has here: whatever follows, it is none. Escapes are left out, they
  // could spell a name.
  all.push_back(sequence({chars(complement(taken)), rest}));
  if (!tree.ends) all.push_back(one('"'));
  return choice(std::move(all));
}

}  // namespace

Expr json_space() {
  return choice(
      {{}, one(' '), sequence({one('\n'), repeat(chars({{' ', ' '}, {'\t', '\t'}}), 0, 20)})});
}

Expr json_character() {
  const Expr hex = chars(kHex);
  const Expr code =
      choice({sequence({chars({{'0', '9'}, {'A', 'C'}, {'E', 'F'}, {'a', 'c'}, {'e', 'f'}}), hex,
                        hex, hex}),
              sequence({chars({{'D', 'D'}, {'d', 'd'}}), chars({{'0', '7'}}), hex, hex})});
  const CharSet letters = {{'"', '"'}, {'\\', '\\'}, {'/', '/'}, {'b', 'b'},
                           {'f', 'f'}, {'n', 'n'},   {'r', 'r'}, {'t', 't'}};
  return choice({chars(complement(kMustEscape)),
                 sequence({one('\\'), choice({chars(letters), sequence({one('u'), code})})})});
}

Expr json_string_of(const Expr& value) { return sequence({one('"'), encoded(value), one('"')}); }

Expr json_string_except(const std::vector<std::string>& names, RuleSet& rules) {
  NameTree tree;
  for (const std::string& name : names) {
    NameTree* at = &tree;
    for (const char32_t c : characters_of(name)) at = &at->next[c];
    at->ends = true;
  }
  const Expr rest = rule(
      rules.add("another name",
                sequence({repeat(chars(complement(kMustEscape)), 0, Expr::kUnbounded), one('"')})));
  return sequence({one('"'), off_the_tree(tree, rest)});
}

Expr json_integer(const NumberLimits& limits) {
  if (!limits.any()) {
    return sequence(
        {optional(one('-')),
         choice({one('0'), sequence({chars({{'1', '9'}}), repeat(chars(kDecimal), 0, 17)})})});
  }
  require_writable(limits);
  const Whole low = least_whole(limits);
  const Whole high = most_whole(limits);
  if (low > high) refuse_empty();
  return signed_range(low, high);
}

Expr json_number(const NumberLimits& limits) {
  if (!limits.any()) {
    const Expr exponent =
        sequence({chars({{'E', 'E'}, {'e', 'e'}}), optional(chars({{'+', '+'}, {'-', '-'}})),
                  repeat(chars(kDecimal), 1, 2)});
    return sequence({json_integer({}), optional(fraction(17)), optional(exponent)});
  }
  require_writable(limits);
  const Whole low = least_whole(limits);
  const Whole high = most_whole(limits);
  if (low > high) {
    if (!limits.least || !limits.most) refuse_empty();
    return narrow_number(limits);
  }
  std::vector<Expr> all = {signed_range(low, high)};
  add_fractions(limits, all);
  return choice(std::move(all));
}

}  // namespace nibble::grammar
