#include "runtime/grammar/parse_ebnf.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "base/error.h"
#include "model/tokenizer/unicode.h"
#include "runtime/grammar/json_schema.h"

namespace nibble::grammar {
namespace {

constexpr std::int64_t kMostRepeats = 65535;
constexpr int kDeepest = 128;

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

class EbnfParser {
 public:
  explicit EbnfParser(std::string_view text) : text_(text) {}

  RuleSet parse() {
    skip();
    while (more()) {
      const std::string name = take_name();
      if (name.empty() || !take("::=")) refuse("expected \"name ::= ...\"");
      const std::int32_t id = id_of(name);
      if (defined_[id]) refuse("rule '" + name + "' stands here twice");
      defined_[id] = true;
      Expr body = alternatives(0);
      rules_.bodies[static_cast<std::size_t>(id)] = std::move(body);
    }
    const auto root = ids_.find("root");
    if (root == ids_.end()) fail(ErrorKind::kUsage, "grammar: there is no rule named root");
    for (const auto& [name, id] : ids_) {
      if (!defined_[id]) fail(ErrorKind::kUsage, "grammar: rule '{}' is used, but not there", name);
    }
    rules_.root = root->second;
    return std::move(rules_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    const auto line =
        std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
    fail(ErrorKind::kUsage, "grammar, line {}: {}", line + 1, what);
  }
  bool more() const { return at_ < text_.size(); }
  char peek() const { return more() ? text_[at_] : '\0'; }

  void skip() {
    while (more()) {
      if (text_[at_] == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) {
        ++at_;
      } else {
        return;
      }
    }
  }
  bool take(std::string_view what) {
    skip();
    if (!text_.substr(at_).starts_with(what)) return false;
    at_ += what.size();
    return true;
  }
  std::string take_name() {
    skip();
    const std::size_t start = at_;
    while (more() && is_name(text_[at_])) ++at_;
    return std::string(text_.substr(start, at_ - start));
  }
  // Whether a new rule begins here.
  bool at_definition() {
    const std::size_t start = at_;
    const bool is = !take_name().empty() && take("::=");
    at_ = start;
    return is;
  }

  std::int32_t id_of(const std::string& name) {
    const auto [place, fresh] = ids_.try_emplace(name, 0);
    if (fresh) place->second = rules_.add(name);
    return place->second;
  }

  Expr alternatives(int depth) {
    if (depth > kDeepest) refuse("groups are nested too deeply");
    std::vector<Expr> all;
    do {
      std::vector<Expr> parts;
      while (true) {
        skip();
        if (!more() || peek() == '|' || peek() == ')') break;
        if (is_name(peek()) && at_definition()) break;
        parts.push_back(quantified(depth));
      }
      all.push_back(sequence(std::move(parts)));
    } while (take("|"));
    return choice(std::move(all));
  }

  Expr quantified(int depth) {
    Expr expr = atom(depth);
    for (int count = 0;; ++count) {
      std::int64_t least = 0;
      std::int64_t most = Expr::kUnbounded;
      if (take("*")) {
      } else if (take("+")) {
        least = 1;
      } else if (take("?")) {
        most = 1;
      } else if (take("{")) {
        least = number();
        most = !take(",") ? least : (skip(), peek() == '}') ? Expr::kUnbounded : number();
        if (!take("}") || (most != Expr::kUnbounded && most < least)) refuse("a bad repetition");
      } else {
        return expr;
      }
      if (count > 0) refuse("a quantifier of a quantifier");
      expr = repeat(std::move(expr), least, most);
    }
  }

  std::int64_t number() {
    skip();
    std::int64_t value = 0;
    const std::size_t start = at_;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + (text_[at_++] - '0');
      if (value > kMostRepeats) refuse("a repetition of more than 65535");
    }
    if (at_ == start) refuse("a number is missing");
    return value;
  }

  Expr atom(int depth) {
    if (take("(")) {
      Expr inside = alternatives(depth + 1);
      if (!take(")")) refuse("a '(' that nothing closes");
      return inside;
    }
    if (take("\"")) return quoted();
    if (take("[")) return chars(char_class());
    if (take(".")) return chars({{0, kLastCharacter}});
    if (take("%json")) return schema();
    const std::string name = take_name();
    if (name.empty()) refuse(std::string("unexpected '") + peek() + "'");
    return rule(id_of(name));
  }

  Expr schema() {
    skip();
    const std::size_t end = object_end();
    const std::string_view text = text_.substr(at_, end - at_);
    at_ = end;
    return add_json_schema(text, rules_);
  }

  // One past the brace that closes the object that begins here.
  std::size_t object_end() const {
    int depth = 0;
    bool inside = false;
    for (std::size_t i = at_; i < text_.size(); ++i) {
      const char c = text_[i];
      if (inside) {
        if (c == '\\') ++i;
        if (c == '"') inside = false;
      } else if (c == '"') {
        inside = true;
      } else if (c == '{') {
        ++depth;
      } else if (c == '}' && --depth <= 0) {
        return i + 1;
      } else if (depth == 0) {
        break;
      }
    }
    refuse("%json wants an object behind it");
  }

  char32_t character() {
    if (!more()) refuse("it ends inside a text or a class");
    if (text_[at_] == '\\') {
      ++at_;
      return escape();
    }
    const std::size_t length = utf8_length(text_[at_]);
    const std::u32string decoded = characters_of(text_.substr(at_, length));
    at_ += decoded.size() == 1 ? std::min(length, text_.size() - at_) : 1;
    return decoded.front();
  }

  char32_t escape() {
    if (!more()) refuse("it ends behind a backslash");
    const char c = text_[at_++];
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'x':
        return hexadecimal(2);
      case 'u':
        return hexadecimal(4);
      case 'U':
        return hexadecimal(8);
      default:
        if ((is_name(c) && c != '-' && c != '_') || static_cast<unsigned char>(c) >= 0x80) {
          refuse("an unknown escape");
        }
        return static_cast<unsigned char>(c);
    }
  }

  char32_t hexadecimal(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) refuse("a hexadecimal digit is missing");
      value = value * 16 + static_cast<char32_t>(digit);
      ++at_;
    }
    if (value > kLastCharacter) refuse("a character beyond U+10FFFF");
    return value;
  }

  Expr quoted() {
    std::vector<Expr> parts;
    while (peek() != '"') {
      const char32_t c = character();
      parts.push_back(chars({{c, c}}));
    }
    ++at_;
    return sequence(std::move(parts));
  }

  CharSet char_class() {
    const bool inverted = peek() == '^';
    if (inverted) ++at_;
    CharSet set;
    while (peek() != ']') {
      const char32_t first = character();
      char32_t last = first;
      if (peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        last = character();
        if (last < first) refuse("a range of a class that falls");
      }
      set.push_back({first, last});
    }
    ++at_;
    return inverted ? complement(set) : set;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  RuleSet rules_;
  std::map<std::string, std::int32_t> ids_;
  std::map<std::int32_t, bool> defined_;
};

}  // namespace

RuleSet parse_ebnf(std::string_view text) {
  constexpr std::size_t kLongest = std::size_t{1} << 20;
  if (text.size() > kLongest) {
    fail(ErrorKind::kUsage, "grammar: longer than {} bytes", kLongest);
  }
  return EbnfParser(text).parse();
}

std::string ebnf_literal(std::string_view text) {
  std::string literal = "\"";
  for (const char c : text) {
    if (c == '\n') {
      literal += "\\n";
    } else if (c == '\r') {
      literal += "\\r";
    } else {
      if (c == '"' || c == '\\') literal += '\\';
      literal += c;
    }
  }
  return literal + '"';
}

}  // namespace nibble::grammar
