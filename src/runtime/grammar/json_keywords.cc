#include "runtime/grammar/json_keywords.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble::grammar {
namespace {

constexpr std::int64_t kMostCount = 65'535;  // minLength and the like

// A property that both require and of which they want different values, in objects alone.
bool has_telling_property(const Schema& a, const Schema& b) {
  if (types_of(a) != std::set<std::string>{"object"} || types_of(a) != types_of(b)) return false;
  const auto requires_name = [](const Schema& schema, const std::string& name) {
    const Schema required = schema.value("required", Schema::array());
    return std::find(required.begin(), required.end(), Schema(name)) != required.end();
  };
  const Schema of_a = a.value("properties", Schema::object());
  const Schema of_b = b.value("properties", Schema::object());
  for (const auto& [name, schema] : of_a.items()) {
    if (!of_b.contains(name) || !requires_name(a, name) || !requires_name(b, name)) continue;
    if (fixed_values(schema) && fixed_values(of_b[name]) && disjoint(schema, of_b[name])) {
      return true;
    }
  }
  return false;
}

std::optional<double> number_at(const Schema& schema, const char* key, const std::string& where) {
  const auto at = schema.find(key);
  if (at == schema.end()) return std::nullopt;
  if (!at->is_number()) refuse_schema(where, fmt::format("'{}' must be a number", key));
  return at->get<double>();
}

std::optional<std::int64_t> count_at(const Schema& schema, const char* key,
                                     const std::string& where) {
  const auto number = number_at(schema, key, where);
  if (!number) return std::nullopt;
  if (*number < 0 || *number != std::floor(*number)) {
    refuse_schema(where, fmt::format("'{}' must be a whole number of 0 or more", key));
  }
  return static_cast<std::int64_t>(std::min(*number, static_cast<double>(kMostCount) + 1));
}

}  // namespace

void refuse_schema(const std::string& where, const std::string& what) {
  fail(ErrorKind::kUsage, "JSON schema, {}: {}", where, what);
}

const std::set<std::string>& json_types() {
  static const std::set<std::string> kTypes = {"object",  "array",   "string", "number",
                                               "integer", "boolean", "null"};
  return kTypes;
}

std::string json_type_of(const Schema& value) {
  if (value.is_object()) return "object";
  if (value.is_array()) return "array";
  if (value.is_string()) return "string";
  if (value.is_boolean()) return "boolean";
  if (value.is_null()) return "null";
  const bool whole =
      value.is_number_integer() || value.get<double>() == std::floor(value.get<double>());
  return whole ? "integer" : "number";
}

std::optional<Schema> fixed_values(const Schema& schema) {
  if (!schema.is_object()) return std::nullopt;
  if (schema.contains("const")) return Schema::array({schema["const"]});
  if (schema.contains("enum") && schema["enum"].is_array()) return schema["enum"];
  return std::nullopt;
}

std::set<std::string> types_of(const Schema& schema) {
  std::set<std::string> types;
  if (const auto fixed = fixed_values(schema)) {
    for (const Schema& one : *fixed) types.insert(json_type_of(one));
  } else if (schema.is_object() && schema.contains("type")) {
    const Schema& type = schema["type"];
    for (const Schema& one : type.is_array() ? type : Schema::array({type})) {
      if (one.is_string()) types.insert(one.get<std::string>());
    }
  } else {
    types = json_types();
  }
  if (types.contains("number")) types.insert("integer");
  return types;
}

bool disjoint(const Schema& a, const Schema& b) {
  const std::set<std::string> of_a = types_of(a);
  const std::set<std::string> of_b = types_of(b);
  const bool no_common_type =
      std::none_of(of_a.begin(), of_a.end(), [&](const auto& t) { return of_b.contains(t); });
  if (no_common_type) return true;
  const auto fixed_a = fixed_values(a);
  const auto fixed_b = fixed_values(b);
  if (fixed_a && fixed_b) {
    return std::none_of(fixed_a->begin(), fixed_a->end(), [&](const Schema& one) {
      return std::find(fixed_b->begin(), fixed_b->end(), one) != fixed_b->end();
    });
  }
  return has_telling_property(a, b);
}

const Schema& list_of(const Schema& schema, const char* key, const std::string& where) {
  const Schema& list = schema[key];
  if (!list.is_array() || list.empty()) {
    refuse_schema(where, fmt::format("'{}' must be a list that is not empty", key));
  }
  return list;
}

NumberLimits limits_of(const Schema& schema, const std::string& where) {
  if (const auto step = number_at(schema, "multipleOf", where); step && *step != 1) {
    refuse_schema(where, "'multipleOf' is not supported but for 1");
  }
  NumberLimits limits;
  limits.least = number_at(schema, "minimum", where);
  limits.most = number_at(schema, "maximum", where);
  if (const auto above = number_at(schema, "exclusiveMinimum", where)) {
    limits.least_excluded = !limits.least || *above >= *limits.least;
    limits.least = std::max(limits.least.value_or(*above), *above);
  }
  if (const auto below = number_at(schema, "exclusiveMaximum", where)) {
    limits.most_excluded = !limits.most || *below <= *limits.most;
    limits.most = std::min(limits.most.value_or(*below), *below);
  }
  return limits;
}

Counts counts_of(const Schema& schema, const char* least, const char* most,
                 const std::string& where) {
  Counts counts;
  counts.least = count_at(schema, least, where).value_or(0);
  counts.most = count_at(schema, most, where).value_or(Expr::kUnbounded);
  if (counts.least > kMostCount) {
    refuse_schema(where, fmt::format("'{}' is more than {}", least, kMostCount));
  }
  // A bound that no answer reaches is none; texts that long are cut off before.
  if (counts.most > kMostCount) counts.most = kMostCount;
  return counts;
}

}  // namespace nibble::grammar
