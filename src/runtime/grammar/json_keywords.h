// What the keywords of a JSON schema say, without the grammar that is made of it.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

#include "runtime/grammar/json_containers.h"
#include "runtime/grammar/json_text.h"

namespace nibble::grammar {

using Schema = nlohmann::ordered_json;

// kUsage about a place of a schema.
[[noreturn]] void refuse_schema(const std::string& where, const std::string& what);

// "object", "array", "string", "number", "integer", "boolean", "null".
const std::set<std::string>& json_types();
// Of a value, "integer" for every whole number.
std::string json_type_of(const Schema& value);
// Those that a schema lets through, as far as type, enum and const say; "integer" is among them
// where "number" is.
std::set<std::string> types_of(const Schema& schema);
// The values of const or enum, if it has one of them.
std::optional<Schema> fixed_values(const Schema& schema);
// Whether it can be seen that no value is of both.
bool disjoint(const Schema& a, const Schema& b);

// A list that is not empty, and the bounds of numbers, lengths and counts. kUsage, naming the
// keyword, for what is none.
const Schema& list_of(const Schema& schema, const char* key, const std::string& where);
NumberLimits limits_of(const Schema& schema, const std::string& where);
Counts counts_of(const Schema& schema, const char* least, const char* most,
                 const std::string& where);

}  // namespace nibble::grammar
