// What a text must fit: a JSON schema, a regular expression or a grammar.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace nibble::grammar {

struct Network;

enum class SpecKind { kJsonSchema, kRegex, kEbnf };

// Cheap to copy.
struct Spec {
  std::string text;  // equal texts mean equal grammars
  std::shared_ptr<const Network> network;
};
// Takes a time that its text bounds. kUsage as parse_regex(), parse_ebnf(), add_json_schema() and
// compile() have it; kCorrupt for a schema that is no JSON.
Spec make_spec(SpecKind kind, std::string_view text);

}  // namespace nibble::grammar
