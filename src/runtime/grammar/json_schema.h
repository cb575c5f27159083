// JSON schemas (draft 2020-12, and what earlier drafts say alike) as expressions of a grammar.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "runtime/grammar/expression.h"

namespace nibble::grammar {

// The documents of a schema, as far as they are written: properties in the schema's order, no two
// with one name, little space, and none that the schema does not name unless it says
// additionalProperties. Every document of the expression is valid; not every valid one is of the
// expression. Keywords: type, enum, const, properties, required, additionalProperties,
// minProperties and maxProperties, items, prefixItems, minItems, maxItems, minLength, maxLength,
// pattern, format (date, time, date-time, uuid, ipv4, email; others say nothing), minimum, maximum,
// exclusiveMinimum, exclusiveMaximum, multipleOf 1, anyOf, oneOf (of alternatives that cannot both
// hold), allOf, $ref within the document (recursive ones, too), $defs.
//
// kUsage, naming the place and the keyword, for others that would restrict the document, for what
// is no schema, and for one of more than 20,000 parts once its references are followed.
Expr add_json_schema(std::string_view text, RuleSet& rules);

// Both schemas at once (allOf); kUsage when nibble cannot say that as one.
nlohmann::ordered_json merged_schemas(const nlohmann::ordered_json& a,
                                      const nlohmann::ordered_json& b, const std::string& where);

}  // namespace nibble::grammar
