// Tokens of Jinja templates, with transformers' settings: trim_blocks and lstrip_blocks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nibble::jinja {

struct Token {
  enum class Kind {
    kText,         // between tags
    kOutputBegin,  // {{
    kOutputEnd,    // }}
    kBlockBegin,   // {%
    kBlockEnd,     // %}
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind;
  std::string text;
  int line;
};

// kCorrupt, with the line, when a tag is not closed or holds what is no token.
std::vector<Token> tokenize(std::string_view source);

}  // namespace nibble::jinja
