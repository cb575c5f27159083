// Syntax trees of Jinja templates.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace nibble::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Argument {
  std::string name;  // empty: by position
  ExpressionPtr value;
};

struct Expression {
  enum class Kind {
    kLiteral,      // literal
    kName,         // text
    kList,         // operands
    kDict,         // operands: key, value, key, value, ...
    kAttribute,    // operands[0].text
    kItem,         // operands[0][operands[1]]
    kSlice,        // operands[0][operands[1] : operands[2] : operands[3]], each may be null
    kCall,         // operands[0](arguments)
    kFilter,       // operands[0] | text(arguments)
    kTest,         // operands[0] is text(arguments)
    kUnary,        // text operands[0]: not, -, +
    kBinary,       // operands[0] text operands[1]
    kCompare,      // operands[0] literal[0] operands[1] literal[1] operands[2] ...
    kConditional,  // operands[0] if operands[1] else operands[2] (may be null)
  };
  Kind kind = Kind::kLiteral;
  int line = 0;
  Json literal;
  std::string text;
  std::vector<ExpressionPtr> operands;
  std::vector<Argument> arguments;
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // null: required
};

struct Statement {
  enum class Kind {
    kText,      // text
    kOutput,    // expressions[0]
    kIf,        // expressions[i] guards blocks[i]; one more block: else
    kFor,       // names in expressions[0], only where expressions[1] (may be null); blocks: body,
                // else
    kSet,       // names = expressions[0]; text: attribute of a namespace, or empty
    kSetBlock,  // names[0] = rendered blocks[0]
    kMacro,     // text(parameters) is blocks[0]
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  std::vector<std::string> names;
  std::vector<ExpressionPtr> expressions;
  std::vector<Block> blocks;
  std::vector<Parameter> parameters;
};

}  // namespace nibble::jinja
