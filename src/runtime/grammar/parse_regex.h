// Regular expressions, in the part of ECMAScript's and Python's syntax that describes regular
// languages, as expressions of a grammar.
#pragma once

#include <string_view>

#include "runtime/grammar/expression.h"

namespace nibble::grammar {

enum class RegexUse {
  kWhole,   // the text is the match; ^ and $ at its ends say nothing new
  kInside,  // a match may lie anywhere in the text, unless ^ and $ hold its ends
};

// Alternatives, groups (named and not), classes, \d \w \s and their negations, escapes, quantifiers
// up to {65535}. Where dialects differ (\d in Python takes other scripts' digits, too), what is
// generated matches in all of them. kUsage, naming what it is, for a syntax error, lookaround,
// back-references, \b, \p, possessive quantifiers, flags, and anchors that are not at an end.
Expr parse_regex(std::string_view pattern, RegexUse use);

}  // namespace nibble::grammar
