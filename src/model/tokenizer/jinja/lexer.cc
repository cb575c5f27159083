#include "model/tokenizer/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "model/tokenizer/unicode.h"

namespace nibble::jinja {
namespace {

bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }
bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : in_(source) {
    // Jinja drops one newline at the very end of a template.
    if (in_.ends_with('\n')) in_.remove_suffix(1);
    if (in_.ends_with('\r')) in_.remove_suffix(1);
  }

  std::vector<Token> run() {
    while (i_ < in_.size()) {
      text();
      if (i_ >= in_.size()) break;
      const char kind = in_[i_ + 1];
      if (kind == '#') {
        comment();
      } else if (kind == '{') {
        tag(Token::Kind::kOutputBegin, Token::Kind::kOutputEnd, "}}");
      } else if (!raw()) {
        tag(Token::Kind::kBlockBegin, Token::Kind::kBlockEnd, "%}");
      }
    }
    add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void corrupt(std::string_view why) const {
    fail(ErrorKind::kCorrupt, "chat template, line {}: {}", line_, why);
  }

  void add(Token::Kind kind, std::string_view text) {
    tokens_.push_back({kind, std::string(text), line_});
  }

  bool at(std::string_view text) const { return in_.substr(i_).starts_with(text); }

  void advance(std::size_t count) {
    line_ +=
        static_cast<int>(std::count(in_.begin() + static_cast<std::ptrdiff_t>(i_),
                                    in_.begin() + static_cast<std::ptrdiff_t>(i_ + count), '\n'));
    i_ += count;
  }

  // Where the next tag begins, or the end.
  std::size_t next_tag() const {
    std::size_t p = i_;
    while ((p = in_.find('{', p)) != std::string_view::npos && p + 1 < in_.size()) {
      if (in_[p + 1] == '{' || in_[p + 1] == '%' || in_[p + 1] == '#') return p;
      ++p;
    }
    return in_.size();
  }

  void text() {
    const std::size_t end = next_tag();
    std::string_view text = in_.substr(i_, end - i_);
    if (end < in_.size()) text = before_tag(text, end);
    if (!text.empty()) add(Token::Kind::kText, text);
    advance(end - i_);
  }

  // What is left of the text before the tag at `tag`: "{%-" takes all spaces; block tags and
  // comments that begin a line take its indentation (lstrip_blocks), unless they say "{%+".
  std::string_view before_tag(std::string_view text, std::size_t tag) const {
    const char control = tag + 2 < in_.size() ? in_[tag + 2] : ' ';
    if (control == '-') {
      while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
      return text;
    }
    if (in_[tag + 1] == '{' || control == '+') return text;
    const std::size_t newline = text.rfind('\n');
    const std::size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    const bool begins_line = newline != std::string_view::npos || starts_line_;
    const std::string_view indent = text.substr(line);
    if (begins_line && std::all_of(indent.begin(), indent.end(), is_space)) {
      text = text.substr(0, line);
    }
    return text;
  }

  // After a tag: "-%}" takes all spaces that follow, other block tags one newline (trim_blocks).
  void after_tag(bool strip, bool trim) {
    starts_line_ = false;
    const std::size_t before = i_;
    if (strip) {
      std::size_t end = i_;
      while (end < in_.size() && is_space(in_[end])) ++end;
      advance(end - i_);
    } else if (trim) {
      if (at("\r\n")) {
        advance(2);
      } else if (at("\n")) {
        advance(1);
      }
    }
    starts_line_ = i_ > before && in_[i_ - 1] == '\n';
  }

  void comment() {
    const std::size_t end = in_.find("#}", i_ + 2);
    if (end == std::string_view::npos) corrupt("comment without end");
    const bool strip = in_[end - 1] == '-' && end - 1 > i_ + 1;
    advance(end + 2 - i_);
    after_tag(strip, true);
  }

  // {% raw %} ... {% endraw %}; false when the tag is another one.
  bool raw() {
    const auto word_at = [&](std::size_t p, std::string_view word) -> std::size_t {
      p += 2;
      if (p < in_.size() && (in_[p] == '-' || in_[p] == '+')) ++p;
      while (p < in_.size() && is_space(in_[p])) ++p;
      if (!in_.substr(p).starts_with(word)) return std::string_view::npos;
      p += word.size();
      while (p < in_.size() && is_space(in_[p])) ++p;
      if (p < in_.size() && in_[p] == '-') ++p;
      return in_.substr(p).starts_with("%}") ? p + 2 : std::string_view::npos;
    };
    const std::size_t begin = word_at(i_, "raw");
    if (begin == std::string_view::npos) return false;
    advance(begin - i_);
    after_tag(in_[begin - 3] == '-', true);
    for (std::size_t p = i_; (p = in_.find("{%", p)) != std::string_view::npos; ++p) {
      const std::size_t end = word_at(p, "endraw");
      if (end == std::string_view::npos) continue;
      const std::string_view text = before_tag(in_.substr(i_, p - i_), p);
      if (!text.empty()) add(Token::Kind::kText, text);
      advance(end - i_);
      after_tag(in_[end - 3] == '-', true);
      return true;
    }
    corrupt("raw without endraw");
  }

  void tag(Token::Kind begin, Token::Kind end, std::string_view close) {
    add(begin, "");
    advance(2);
    if (at("-") || at("+")) advance(1);
    int open_braces = 0;  // "}}" may also close dictionaries
    while (true) {
      while (i_ < in_.size() && is_space(in_[i_])) advance(1);
      if (i_ >= in_.size()) corrupt("tag without end");
      const bool strip = at("-") && in_.substr(i_ + 1).starts_with(close);
      const bool keep = at("+") && in_.substr(i_ + 1).starts_with(close);
      if (open_braces == 0 && (strip || keep || at(close))) {
        advance(close.size() + (strip || keep ? 1 : 0));
        add(end, "");
        after_tag(strip, end == Token::Kind::kBlockEnd && !keep);
        return;
      }
      if (in_[i_] == '{') ++open_braces;
      if (in_[i_] == '}') --open_braces;
      token();
    }
  }

  void token() {
    const char c = in_[i_];
    if (is_name_start(c)) {
      take_while(Token::Kind::kName, [](char x) { return is_name_start(x) || is_digit(x); });
    } else if (is_digit(c)) {
      number();
    } else if (c == '\'' || c == '"') {
      string(c);
    } else {
      operator_token();
    }
  }

  template <class Test>
  void take_while(Token::Kind kind, const Test& test) {
    std::size_t end = i_;
    while (end < in_.size() && test(in_[end])) ++end;
    add(kind, in_.substr(i_, end - i_));
    advance(end - i_);
  }

  void number() {
    std::size_t end = i_;
    while (end < in_.size() && is_digit(in_[end])) ++end;
    Token::Kind kind = Token::Kind::kInteger;
    if (end + 1 < in_.size() && in_[end] == '.' && is_digit(in_[end + 1])) {
      kind = Token::Kind::kFloat;
      for (++end; end < in_.size() && is_digit(in_[end]);) ++end;
    }
    add(kind, in_.substr(i_, end - i_));
    advance(end - i_);
  }

  void string(char quote) {
    std::string value;
    const int begin_line = line_;
    std::size_t p = i_ + 1;
    for (; p < in_.size() && in_[p] != quote; ++p) {
      if (in_[p] == '\\' && p + 1 < in_.size()) {
        p = escape(p + 1, value);
      } else {
        value += in_[p];
      }
    }
    if (p >= in_.size()) corrupt("string without end");
    advance(p + 1 - i_);
    tokens_.push_back({Token::Kind::kString, std::move(value), begin_line});
  }

  // The escape whose letter stands at p; returns where its last character is.
  std::size_t escape(std::size_t p, std::string& value) const {
    constexpr std::string_view kLetters = "nrtabfv0\\'\"";
    constexpr std::string_view kValues("\n\r\t\a\b\f\v\0\\'\"", 11);
    const char c = in_[p];
    if (const std::size_t k = kLetters.find(c); k != std::string_view::npos) {
      value += kValues[k];
      return p;
    }
    const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    const std::string_view hex = in_.substr(p + 1, digits);
    const bool valid =
        digits > 0 && hex.size() == digits &&
        std::all_of(hex.begin(), hex.end(), [](unsigned char h) { return std::isxdigit(h) != 0; });
    if (!valid) {  // Python keeps backslashes that escape nothing
      value += '\\';
      value += c;
      return p;
    }
    const auto code = static_cast<char32_t>(std::stoul(std::string(hex), nullptr, 16));
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) corrupt("no such character");
    append_utf8(value, code);
    return p + digits;
  }

  void operator_token() {
    constexpr std::array<std::string_view, 6> kLong = {"//", "**", "==", "!=", "<=", ">="};
    for (const std::string_view op : kLong) {
      if (!at(op)) continue;
      add(Token::Kind::kOperator, op);
      advance(op.size());
      return;
    }
    constexpr std::string_view kShort = "+-*/%~()[]{}.,:|=<>";
    if (kShort.find(in_[i_]) == std::string_view::npos) corrupt("unexpected character in a tag");
    add(Token::Kind::kOperator, in_.substr(i_, 1));
    advance(1);
  }

  std::string_view in_;
  std::size_t i_ = 0;
  int line_ = 1;
  bool starts_line_ = true;  // the text from i_ on begins a line
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace nibble::jinja
