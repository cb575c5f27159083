// Runs Jinja templates.
#pragma once

#include <string>

#include "model/tokenizer/jinja/ast.h"
#include "model/tokenizer/jinja/value.h"

namespace nibble::jinja {

// Renders the tree with the entries of `context` as global variables. Errors name the line; steps,
// calls and output are bounded (kCorrupt).
std::string render(const Block& block, const Value& context);

}  // namespace nibble::jinja
