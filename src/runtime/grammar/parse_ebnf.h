// Grammars as llama.cpp's GBNF writes them, which vLLM's users write, too.
#pragma once

#include <string_view>

#include "runtime/grammar/expression.h"

namespace nibble::grammar {

// name ::= alternatives, one rule of which is named root:
//   "text" (escapes \n \r \t \\ \" \xHH \uHHHH \UHHHHHHHH), [a-z0-9] and [^...], . (any character),
//   other rules, ( ), | and the quantifiers * + ? {m} {m,} {m,n} up to 65535; # begins a comment;
//   %json{...} is what a JSON schema describes (as in llguidance).
// A rule ends where the next one begins. kUsage, with the line, on anything else, on rules that are
// missing, and on more than 1 MiB of text.
RuleSet parse_ebnf(std::string_view text);

// A text as a literal of the above, with its quotes.
std::string ebnf_literal(std::string_view text);

}  // namespace nibble::grammar
