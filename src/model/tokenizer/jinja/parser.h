// Jinja templates to syntax trees.
#pragma once

#include <string_view>

#include "model/tokenizer/jinja/ast.h"

namespace nibble::jinja {

// kCorrupt, with the line, on syntax errors and on nesting deeper than 100; kUnsupported for
// statements that chat templates have no use for (extends, include, import, call, filter, ...).
Block parse(std::string_view source);

}  // namespace nibble::jinja
