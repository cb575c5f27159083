#include "model/tokenizer/jinja/parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "base/error.h"
#include "model/tokenizer/jinja/lexer.h"

namespace nibble::jinja {
namespace {

using EKind = Expression::Kind;
using SKind = Statement::Kind;
using TKind = Token::Kind;

constexpr int kMaxDepth = 100;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Block run() {
    Block block = body({});
    if (peek().kind != TKind::kEnd) corrupt("a block ends that never began");
    return block;
  }

 private:
  class Nested {
   public:
    explicit Nested(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxDepth) parser_.corrupt("nested too deeply");
    }
    ~Nested() { --parser_.depth_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    Parser& parser_;
  };

  [[noreturn]] void corrupt(std::string_view why) const {
    fail(ErrorKind::kCorrupt, "chat template, line {}: {}", peek().line, why);
  }

  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(i_ + ahead, tokens_.size() - 1)];
  }
  Token next() { return tokens_[std::min(i_++, tokens_.size() - 1)]; }

  bool is(TKind kind, std::string_view text) const {
    return peek().kind == kind && peek().text == text;
  }
  bool is_op(std::string_view text) const { return is(TKind::kOperator, text); }
  bool is_word(std::string_view text) const { return is(TKind::kName, text); }

  bool accept(TKind kind, std::string_view text) {
    if (!is(kind, text)) return false;
    ++i_;
    return true;
  }
  bool accept_op(std::string_view text) { return accept(TKind::kOperator, text); }
  bool accept_word(std::string_view text) { return accept(TKind::kName, text); }

  void expect_op(std::string_view text) {
    if (!accept_op(text)) corrupt(fmt::format("'{}' expected", text));
  }
  void expect_end_of_tag() {
    if (next().kind != TKind::kBlockEnd) {
      --i_;
      corrupt("the tag should end here");
    }
  }
  std::string name() {
    if (peek().kind != TKind::kName) corrupt("a name expected");
    return next().text;
  }

  // Statements until a tag that begins with one of `ends`, which is left to the caller.
  Block body(std::initializer_list<std::string_view> ends) {
    const Nested nested(*this);
    Block block;
    while (peek().kind != TKind::kEnd) {
      if (peek().kind == TKind::kText) {
        block.push_back(make(SKind::kText));
        block.back()->text = next().text;
      } else if (peek().kind == TKind::kOutputBegin) {
        block.push_back(make(SKind::kOutput));
        ++i_;
        block.back()->expressions.push_back(expression());
        if (next().kind != TKind::kOutputEnd) {
          --i_;
          corrupt("'}}' expected");
        }
      } else {
        const std::string& word = peek(1).text;
        if (std::find(ends.begin(), ends.end(), word) != ends.end()) return block;
        if (word.starts_with("end") || word == "else" || word == "elif") {
          corrupt(fmt::format("unexpected '{}'", word));
        }
        ++i_;
        block.push_back(statement());
      }
    }
    if (ends.size() > 0) corrupt(fmt::format("'{}' is missing", *(ends.end() - 1)));
    return block;
  }

  std::unique_ptr<Statement> make(SKind kind) const {
    auto made = std::make_unique<Statement>();
    made->kind = kind;
    made->line = peek().line;
    return made;
  }

  std::unique_ptr<Statement> statement() {
    const int line = peek().line;
    const std::string word = name();
    std::unique_ptr<Statement> made;
    if (word == "if") {
      made = if_statement();
    } else if (word == "for") {
      made = for_statement();
    } else if (word == "set") {
      made = set_statement();
    } else if (word == "macro") {
      made = macro_statement();
    } else if (word == "generation") {
      // transformers marks the assistant's text with it; it renders as its content.
      expect_end_of_tag();
      made = make(SKind::kIf);
      made->expressions.push_back(literal(true));
      made->blocks.push_back(body({"endgeneration"}));
      end_tag("endgeneration");
    } else if (word == "break" || word == "continue") {
      made = make(word == "break" ? SKind::kBreak : SKind::kContinue);
      expect_end_of_tag();
    } else {
      fail(ErrorKind::kUnsupported, "chat template, line {}: statement '{}'", line, word);
    }
    made->line = line;
    return made;
  }

  void end_tag(std::string_view word) {
    ++i_;
    if (!accept_word(word)) corrupt(fmt::format("'{}' expected", word));
    expect_end_of_tag();
  }

  std::unique_ptr<Statement> if_statement() {
    auto made = make(SKind::kIf);
    do {
      made->expressions.push_back(expression());
      expect_end_of_tag();
      made->blocks.push_back(body({"elif", "else", "endif"}));
      ++i_;
    } while (accept_word("elif"));
    if (accept_word("else")) {
      expect_end_of_tag();
      made->blocks.push_back(body({"endif"}));
      ++i_;
    }
    if (!accept_word("endif")) corrupt("'endif' expected");
    expect_end_of_tag();
    return made;
  }

  std::unique_ptr<Statement> for_statement() {
    auto made = make(SKind::kFor);
    const bool parenthesized = accept_op("(");
    do {
      made->names.push_back(name());
    } while (accept_op(","));
    if (parenthesized) expect_op(")");
    if (!accept_word("in")) corrupt("'in' expected");
    made->expressions.push_back(or_expression());  // an "if" that follows is the loop's filter
    made->expressions.push_back(accept_word("if") ? expression() : nullptr);
    if (is_word("recursive")) {
      fail(ErrorKind::kUnsupported, "chat template, line {}: recursive loops", peek().line);
    }
    expect_end_of_tag();
    made->blocks.push_back(body({"else", "endfor"}));
    ++i_;
    if (accept_word("else")) {
      expect_end_of_tag();
      made->blocks.push_back(body({"endfor"}));
      ++i_;
    }
    if (!accept_word("endfor")) corrupt("'endfor' expected");
    expect_end_of_tag();
    return made;
  }

  std::unique_ptr<Statement> set_statement() {
    auto made = make(SKind::kSet);
    made->names.push_back(name());
    if (accept_op(".")) made->text = name();
    while (accept_op(",")) made->names.push_back(name());
    if (accept_op("=")) {
      made->expressions.push_back(expression_or_tuple());
      expect_end_of_tag();
      return made;
    }
    if (made->names.size() > 1 || !made->text.empty()) corrupt("'=' expected");
    expect_end_of_tag();
    made->kind = SKind::kSetBlock;
    made->blocks.push_back(body({"endset"}));
    end_tag("endset");
    return made;
  }

  std::unique_ptr<Statement> macro_statement() {
    auto made = make(SKind::kMacro);
    made->text = name();
    expect_op("(");
    while (!accept_op(")")) {
      Parameter parameter{name(), nullptr};
      if (accept_op("=")) parameter.fallback = expression();
      made->parameters.push_back(std::move(parameter));
      if (!is_op(")")) expect_op(",");
    }
    expect_end_of_tag();
    made->blocks.push_back(body({"endmacro"}));
    end_tag("endmacro");
    return made;
  }

  ExpressionPtr make(EKind kind) const {
    auto made = std::make_unique<Expression>();
    made->kind = kind;
    made->line = peek().line;
    return made;
  }
  ExpressionPtr literal(Json value) const {
    auto made = make(EKind::kLiteral);
    made->literal = std::move(value);
    return made;
  }
  ExpressionPtr binary(std::string op, ExpressionPtr left, ExpressionPtr right) const {
    auto made = make(EKind::kBinary);
    made->text = std::move(op);
    made->operands.push_back(std::move(left));
    made->operands.push_back(std::move(right));
    return made;
  }

  ExpressionPtr expression_or_tuple() {
    auto first = expression();
    if (!is_op(",")) return first;
    auto made = make(EKind::kList);
    made->operands.push_back(std::move(first));
    while (accept_op(",")) made->operands.push_back(expression());
    return made;
  }

  ExpressionPtr expression() {
    const Nested nested(*this);
    auto value = or_expression();
    while (is_word("if")) {
      auto made = make(EKind::kConditional);
      ++i_;
      made->operands.push_back(std::move(value));
      made->operands.push_back(or_expression());
      made->operands.push_back(accept_word("else") ? expression() : nullptr);
      value = std::move(made);
    }
    return value;
  }

  ExpressionPtr or_expression() {
    auto left = and_expression();
    while (accept_word("or")) left = chained(binary("or", std::move(left), and_expression()));
    return left;
  }

  ExpressionPtr and_expression() {
    auto left = not_expression();
    while (accept_word("and")) left = chained(binary("and", std::move(left), not_expression()));
    return left;
  }

  // Chains of operators nest in the tree as parentheses do in the text.
  ExpressionPtr chained(ExpressionPtr made) {
    constexpr int kMaxOperators = 2000;
    if (++operators_ > kMaxOperators) corrupt("too many operators");
    return made;
  }

  ExpressionPtr not_expression() {
    if (!is_word("not")) return comparison();
    const Nested nested(*this);
    auto made = make(EKind::kUnary);
    ++i_;
    made->text = "not";
    made->operands.push_back(not_expression());
    return made;
  }

  // a < b < c means a < b and b < c.
  ExpressionPtr comparison() {
    auto left = sum();
    ExpressionPtr made;
    for (std::string op = comparison_operator(); !op.empty(); op = comparison_operator()) {
      if (made == nullptr) {
        made = make(EKind::kCompare);
        made->operands.push_back(std::move(left));
      }
      made->literal.push_back(op);
      made->operands.push_back(sum());
    }
    return made == nullptr ? std::move(left) : std::move(made);
  }

  // The comparison that stands here, or nothing.
  std::string comparison_operator() {
    for (const char* op : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (accept_op(op)) return op;
    }
    if (accept_word("in")) return "in";
    if (!is_word("not") || peek(1).text != "in") return "";
    i_ += 2;
    return "not in";
  }

  ExpressionPtr sum() {
    auto left = concatenation();
    while (is_op("+") || is_op("-")) {
      const std::string op = next().text;
      left = chained(binary(op, std::move(left), concatenation()));
    }
    return left;
  }

  ExpressionPtr concatenation() {
    auto left = product();
    while (accept_op("~")) left = chained(binary("~", std::move(left), product()));
    return left;
  }

  ExpressionPtr product() {
    auto left = unary();
    while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
      const std::string op = next().text;
      left = chained(binary(op, std::move(left), unary()));
    }
    return left;
  }

  ExpressionPtr unary() {
    if (!is_op("-") && !is_op("+")) return filtered(power());
    const Nested nested(*this);
    auto made = make(EKind::kUnary);
    made->text = next().text;
    made->operands.push_back(unary());
    return made;
  }

  ExpressionPtr power() {
    auto left = postfix(primary());
    if (!accept_op("**")) return left;
    const Nested nested(*this);
    return binary("**", std::move(left), unary());
  }

  // Filters and tests, which bind tighter than arithmetic.
  ExpressionPtr filtered(ExpressionPtr value) {
    while (true) {
      if (is_op("|")) {
        auto made = chained(make(EKind::kFilter));
        ++i_;
        made->text = name();
        made->operands.push_back(std::move(value));
        if (accept_op("(")) made->arguments = arguments();
        value = postfix(std::move(made));
      } else if (is_word("is")) {
        value = test(std::move(value));
      } else {
        return value;
      }
    }
  }

  ExpressionPtr test(ExpressionPtr value) {
    auto made = chained(make(EKind::kTest));
    ++i_;
    const bool negated = accept_word("not");
    made->text = name();
    made->operands.push_back(std::move(value));
    if (accept_op("(")) {
      made->arguments = arguments();
    } else if (starts_test_argument()) {
      made->arguments.push_back({"", postfix(primary())});
    }
    if (!negated) return made;
    auto outer = make(EKind::kUnary);
    outer->text = "not";
    outer->operands.push_back(std::move(made));
    return outer;
  }

  // "x is divisibleby 3": an argument without parentheses.
  bool starts_test_argument() const {
    if (peek().kind == TKind::kName) {
      for (const char* word : {"and", "or", "not", "if", "else", "in", "is", "recursive"}) {
        if (peek().text == word) return false;
      }
      return true;
    }
    return peek().kind == TKind::kString || peek().kind == TKind::kInteger ||
           peek().kind == TKind::kFloat;
  }

  ExpressionPtr postfix(ExpressionPtr value) {
    while (true) {
      if (is_op(".")) {
        auto made = chained(make(EKind::kAttribute));
        ++i_;
        if (peek().kind == TKind::kInteger) {
          made->kind = EKind::kItem;
          made->operands.push_back(std::move(value));
          made->operands.push_back(primary());
        } else {
          made->text = name();
          made->operands.push_back(std::move(value));
        }
        value = std::move(made);
      } else if (is_op("[")) {
        value = subscript(std::move(value));
      } else if (is_op("(")) {
        auto made = chained(make(EKind::kCall));
        ++i_;
        made->operands.push_back(std::move(value));
        made->arguments = arguments();
        value = std::move(made);
      } else {
        return value;
      }
    }
  }

  ExpressionPtr subscript(ExpressionPtr value) {
    auto made = chained(make(EKind::kItem));
    ++i_;
    made->operands.push_back(std::move(value));
    made->operands.push_back(is_op(":") ? nullptr : expression());
    if (is_op(":")) {
      made->kind = EKind::kSlice;
      while (accept_op(":")) {
        made->operands.push_back(is_op(":") || is_op("]") ? nullptr : expression());
      }
      if (made->operands.size() > 4) corrupt("slice with too many parts");
      made->operands.resize(4);
    }
    expect_op("]");
    return made;
  }

  std::vector<Argument> arguments() {
    std::vector<Argument> made;
    while (!accept_op(")")) {
      Argument argument;
      if (peek().kind == TKind::kName && peek(1).kind == TKind::kOperator && peek(1).text == "=") {
        argument.name = next().text;
        ++i_;
      }
      argument.value = expression();
      made.push_back(std::move(argument));
      if (!is_op(")")) expect_op(",");
    }
    return made;
  }

  ExpressionPtr primary() {
    const Token token = next();
    switch (token.kind) {
      case TKind::kName:
        return name_or_constant(token);
      case TKind::kString: {
        std::string text = token.text;
        while (peek().kind == TKind::kString) text += next().text;
        return literal(std::move(text));
      }
      case TKind::kInteger: {
        std::int64_t value = 0;
        const char* end = token.text.data() + token.text.size();
        if (std::from_chars(token.text.data(), end, value).ec != std::errc()) {
          corrupt("number out of range");
        }
        return literal(value);
      }
      case TKind::kFloat:
        return literal(std::stod(token.text));
      case TKind::kOperator:
        if (token.text == "(") return parenthesized();
        if (token.text == "[") return list();
        if (token.text == "{") return dict();
        [[fallthrough]];
      default:
        --i_;
        corrupt("an expression expected");
    }
  }

  ExpressionPtr name_or_constant(const Token& token) {
    if (token.text == "true" || token.text == "True") return literal(true);
    if (token.text == "false" || token.text == "False") return literal(false);
    if (token.text == "none" || token.text == "None") return literal(nullptr);
    auto made = make(EKind::kName);
    made->text = token.text;
    return made;
  }

  ExpressionPtr parenthesized() {
    if (accept_op(")")) return make(EKind::kList);
    auto value = expression();
    if (is_op(",")) {
      auto made = make(EKind::kList);
      made->operands.push_back(std::move(value));
      while (accept_op(",") && !is_op(")")) made->operands.push_back(expression());
      value = std::move(made);
    }
    expect_op(")");
    return value;
  }

  ExpressionPtr list() {
    auto made = make(EKind::kList);
    while (!accept_op("]")) {
      made->operands.push_back(expression());
      if (!is_op("]")) expect_op(",");
    }
    return made;
  }

  ExpressionPtr dict() {
    auto made = make(EKind::kDict);
    while (!accept_op("}")) {
      made->operands.push_back(expression());
      expect_op(":");
      made->operands.push_back(expression());
      if (!is_op("}")) expect_op(",");
    }
    return made;
  }

  std::vector<Token> tokens_;
  std::size_t i_ = 0;
  int depth_ = 0;
  int operators_ = 0;
};

}  // namespace

Block parse(std::string_view source) { return Parser(tokenize(source)).run(); }

}  // namespace nibble::jinja
