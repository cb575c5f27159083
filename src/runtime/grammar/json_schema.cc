#include "runtime/grammar/json_schema.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "runtime/grammar/json_text.h"
#include "runtime/grammar/parse_regex.h"

namespace nibble::grammar {
namespace {

using Schema = nlohmann::ordered_json;

constexpr int kMostParts = 20'000;
constexpr int kDeepest = 64;
constexpr std::int64_t kMostCount = 65'535;  // minLength and the like

const char* const kTypes[] = {"object", "array", "string", "number", "integer", "boolean", "null"};

// Keywords that restrict documents in ways this compiler does not follow.
const char* const kRefused[] = {"not",
                                "if",
                                "dependentRequired",
                                "dependentSchemas",
                                "dependencies",
                                "contains",
                                "minContains",
                                "patternProperties",
                                "unevaluatedProperties",
                                "propertyNames",
                                "unevaluatedItems",
                                "$dynamicRef",
                                "$recursiveRef",
                                "additionalItems"};

// Which types a keyword speaks of; a schema without "type" is read as meaning them.
const std::pair<const char*, const char*> kMeant[] = {
    {"properties", "object"},       {"required", "object"},      {"additionalProperties", "object"},
    {"minProperties", "object"},    {"maxProperties", "object"}, {"items", "array"},
    {"prefixItems", "array"},       {"minItems", "array"},       {"maxItems", "array"},
    {"minLength", "string"},        {"maxLength", "string"},     {"pattern", "string"},
    {"minimum", "number"},          {"maximum", "number"},       {"exclusiveMinimum", "number"},
    {"exclusiveMaximum", "number"}, {"multipleOf", "number"}};

const std::pair<const char*, const char*> kFormats[] = {
    {"date", R"(\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8]))"},
    {"time", R"(([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d))"},
    {"date-time", R"(\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d)"
                  R"((\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d))"},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"ipv4", R"(((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))"},
    {"email", R"([A-Za-z0-9_+-]{1,32}(\.[A-Za-z0-9_+-]{1,16}){0,3}@)"
              R"([a-z0-9]{1,32}(\.[a-z0-9]{1,16}){1,3})"},
};

std::string type_of(const Schema& value) {
  if (value.is_object()) return "object";
  if (value.is_array()) return "array";
  if (value.is_string()) return "string";
  if (value.is_boolean()) return "boolean";
  if (value.is_null()) return "null";
  const bool whole =
      value.is_number_integer() || value.get<double>() == std::floor(value.get<double>());
  return whole ? "integer" : "number";
}

class SchemaCompiler {
 public:
  SchemaCompiler(const Schema& root, RuleSet& rules) : root_(root), rules_(rules) {}

  Expr compile() { return value(root_, "#", 0); }

 private:
  [[noreturn]] static void refuse(const std::string& where, const std::string& what) {
    fail(ErrorKind::kUsage, "JSON schema, {}: {}", where, what);
  }

  void count(const std::string& where, int depth) {
    if (++parts_ > kMostParts) {
      fail(ErrorKind::kUsage, "JSON schema: it has more than {} parts, references followed",
           kMostParts);
    }
    if (depth > kDeepest) refuse(where.substr(0, 200), "it is nested too deeply");
  }

  // What a schema describes; a rule of its own, so that copies are cheap.
  Expr outlined(const Schema& schema, const std::string& where, int depth) {
    Expr body = value(schema, where, depth);
    return rule(rules_.add(where, std::move(body)));
  }

  Expr value(const Schema& schema, const std::string& where, int depth) {
    count(where, depth);
    if (schema.is_boolean()) return schema.get<bool>() ? any() : choice({});
    if (!schema.is_object()) refuse(where, "a schema must be an object, true or false");
    for (const char* const key : kRefused) {
      if (schema.contains(key)) refuse(where, fmt::format("'{}' is not supported", key));
    }
    if (schema.contains("uniqueItems") && schema["uniqueItems"] != false) {
      refuse(where, "'uniqueItems' is not supported");
    }
    if (schema.contains("$ref")) return reference(schema, where, depth);
    if (schema.contains("allOf")) return all_of(schema, where, depth);
    for (const char* const key : {"anyOf", "oneOf"}) {
      if (schema.contains(key)) return any_of(schema, key, where, depth);
    }
    if (schema.contains("const")) return constants(schema, Schema::array({schema["const"]}), where);
    if (schema.contains("enum")) return constants(schema, schema["enum"], where);
    return typed(schema, where, depth);
  }

  static Schema without(const Schema& schema, const char* key) {
    Schema rest = schema;
    rest.erase(key);
    // Definitions stay reachable through the document; here they would only be copied about.
    for (const char* const definitions : {"$defs", "definitions", "$schema", "$id"}) {
      rest.erase(definitions);
    }
    return rest;
  }

  const Schema& resolve(const Schema& reference, const std::string& where) const {
    if (!reference.is_string()) refuse(where, "$ref must be a string");
    const auto text = reference.get<std::string>();
    if (!text.starts_with('#')) refuse(where, "$ref '" + text + "' leads out of the document");
    try {
      return root_.at(Schema::json_pointer(text.substr(1)));
    } catch (const Schema::exception&) {
      refuse(where, "$ref '" + text + "' leads nowhere");
    }
  }

  Expr reference(const Schema& schema, const std::string& where, int depth) {
    const Schema& target = resolve(schema["$ref"], where);
    const Schema rest = without(schema, "$ref");
    if (!restricts(rest)) {
      const auto name = schema["$ref"].get<std::string>();
      const auto [place, fresh] = references_.try_emplace(name, -1);
      if (!fresh) return rule(place->second);
      const std::int32_t id = place->second = rules_.add(name);
      Expr body = value(target, name, depth + 1);
      rules_.bodies[static_cast<std::size_t>(id)] = std::move(body);
      return rule(id);
    }
    return value(merged_schemas(target, rest, where), where, depth + 1);
  }

  // Whether anything in it could be violated.
  static bool restricts(const Schema& schema) {
    static const std::set<std::string> kSayNothing = {
        "title",         "description", "default", "examples",        "$comment",
        "$schema",       "$id",         "$defs",   "definitions",     "readOnly",
        "writeOnly",     "deprecated",  "$anchor", "contentEncoding", "contentMediaType",
        "discriminator", "example",     "strict"};
    for (const auto& [key, value] : schema.items()) {
      if (!kSayNothing.contains(key)) return true;
    }
    return false;
  }

  // A schema with its own reference, if it has one, followed.
  Schema followed(const Schema& schema, const std::string& where, int depth) {
    count(where, depth);
    if (!schema.is_object() || !schema.contains("$ref")) return schema;
    const Schema target = followed(resolve(schema["$ref"], where), where, depth + 1);
    return merged_schemas(target, without(schema, "$ref"), where);
  }

  Expr all_of(const Schema& schema, const std::string& where, int depth) {
    const Schema& all = list_of(schema, "allOf", where);
    Schema merged = without(schema, "allOf");
    for (const Schema& one : all) {
      merged = merged_schemas(merged, followed(one, where, depth + 1), where);
    }
    return value(merged, where + "/allOf", depth + 1);
  }

  static const Schema& list_of(const Schema& schema, const char* key, const std::string& where) {
    const Schema& list = schema[key];
    if (!list.is_array() || list.empty()) {
      refuse(where, fmt::format("'{}' must be a list that is not empty", key));
    }
    return list;
  }

  Expr any_of(const Schema& schema, const char* key, const std::string& where, int depth) {
    const Schema& all = list_of(schema, key, where);
    const Schema rest = without(schema, key);
    const bool alone = !restricts(rest);
    std::vector<Schema> schemas;
    for (const Schema& one : all) {
      schemas.push_back(alone ? one : merged_schemas(followed(one, where, depth + 1), rest, where));
    }
    if (std::string_view(key) == "oneOf") require_disjoint(schemas, where, depth);
    std::vector<Expr> choices;
    for (std::size_t i = 0; i < schemas.size(); ++i) {
      choices.push_back(outlined(schemas[i], fmt::format("{}/{}/{}", where, key, i), depth + 1));
    }
    return choice(std::move(choices));
  }

  void require_disjoint(const std::vector<Schema>& schemas, const std::string& where, int depth) {
    std::vector<Schema> open;
    for (const Schema& one : schemas) open.push_back(followed(one, where, depth + 1));
    for (std::size_t i = 0; i < open.size(); ++i) {
      for (std::size_t k = i + 1; k < open.size(); ++k) {
        count(where, depth);
        if (disjoint(open[i], open[k])) continue;
        refuse(where, fmt::format("alternatives {} and {} of oneOf could both hold; use anyOf, or "
                                  "give them different types or a property of different const",
                                  i, k));
      }
    }
  }

  static std::optional<Schema> fixed_values(const Schema& schema) {
    if (!schema.is_object()) return std::nullopt;
    if (schema.contains("const")) return Schema::array({schema["const"]});
    if (schema.contains("enum") && schema["enum"].is_array()) return schema["enum"];
    return std::nullopt;
  }

  static std::set<std::string> types_of(const Schema& schema) {
    std::set<std::string> types;
    if (const auto fixed = fixed_values(schema)) {
      for (const Schema& one : *fixed) types.insert(type_of(one));
    } else if (schema.is_object() && schema.contains("type")) {
      const Schema& type = schema["type"];
      for (const Schema& one : type.is_array() ? type : Schema::array({type})) {
        if (one.is_string()) types.insert(one.get<std::string>());
      }
    } else {
      types.insert(std::begin(kTypes), std::end(kTypes));
    }
    if (types.contains("number")) types.insert("integer");
    return types;
  }

  static bool disjoint(const Schema& a, const Schema& b) {
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

  // A property that both require and of which they want different values, in objects alone.
  static bool has_telling_property(const Schema& a, const Schema& b) {
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

  Expr constants(const Schema& schema, const Schema& values, const std::string& where) {
    if (!values.is_array()) refuse(where, "'enum' must be a list");
    const std::set<std::string> types = types_of_keyword(schema);
    for (const auto& [key, value] : schema.items()) {
      const bool more = std::any_of(std::begin(kMeant), std::end(kMeant),
                                    [&, k = key](const auto& meant) { return k == meant.first; });
      if (more) refuse(where, fmt::format("'{}' beside 'enum' or 'const' is not supported", key));
    }
    std::vector<Expr> all;
    for (const Schema& one : values) {
      count(where, 0);
      const std::string type = type_of(one);
      if (!types.contains(type) && !(type == "integer" && types.contains("number"))) continue;
      all.push_back(literal(one.dump()));
    }
    return choice(std::move(all));
  }

  static std::set<std::string> types_of_keyword(const Schema& schema) {
    if (!schema.contains("type")) return {std::begin(kTypes), std::end(kTypes)};
    return types_of({{"type", schema["type"]}});
  }

  Expr typed(const Schema& schema, const std::string& where, int depth) {
    std::vector<std::string> types;
    if (schema.contains("type")) {
      const Schema& type = schema["type"];
      for (const Schema& one : type.is_array() ? type : Schema::array({type})) {
        const bool known = one.is_string() && std::find(std::begin(kTypes), std::end(kTypes),
                                                        one.get<std::string>()) != std::end(kTypes);
        if (!known) refuse(where, "'type' names what is no type of JSON");
        types.push_back(one.get<std::string>());
      }
    } else {
      for (const auto& [key, type] : kMeant) {
        const bool known = std::find(types.begin(), types.end(), type) != types.end();
        if (schema.contains(key) && !known) types.emplace_back(type);
      }
      if (types.empty() && schema.contains("format")) types.emplace_back("string");
      if (types.empty()) return any();
    }
    std::vector<Expr> all;
    for (const std::string& type : types) all.push_back(of_type(type, schema, where, depth));
    return choice(std::move(all));
  }

  Expr of_type(const std::string& type, const Schema& schema, const std::string& where, int depth) {
    if (type == "null") return literal("null");
    if (type == "boolean") return choice({literal("true"), literal("false")});
    if (type == "integer") return json_integer(limits_of(schema, where));
    if (type == "number") {
      // 1 divides whole numbers alone.
      const bool whole = schema.contains("multipleOf");
      return whole ? json_integer(limits_of(schema, where)) : json_number(limits_of(schema, where));
    }
    if (type == "string") return string(schema, where);
    if (type == "array") return array(schema, where, depth);
    return object(schema, where, depth);
  }

  static std::optional<double> number_at(const Schema& schema, const char* key,
                                         const std::string& where) {
    const auto at = schema.find(key);
    if (at == schema.end()) return std::nullopt;
    if (!at->is_number()) refuse(where, fmt::format("'{}' must be a number", key));
    return at->get<double>();
  }

  static NumberLimits limits_of(const Schema& schema, const std::string& where) {
    if (const auto step = number_at(schema, "multipleOf", where); step && *step != 1) {
      refuse(where, "'multipleOf' is not supported but for 1");
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

  static std::optional<std::int64_t> count_at(const Schema& schema, const char* key,
                                              const std::string& where) {
    const auto number = number_at(schema, key, where);
    if (!number) return std::nullopt;
    if (*number < 0 || *number != std::floor(*number)) {
      refuse(where, fmt::format("'{}' must be a whole number of 0 or more", key));
    }
    return static_cast<std::int64_t>(std::min(*number, static_cast<double>(kMostCount) + 1));
  }

  struct Counts {
    std::int64_t least = 0;
    std::int64_t most = Expr::kUnbounded;
    bool any() const { return least > 0 || most != Expr::kUnbounded; }
  };
  static Counts counts_of(const Schema& schema, const char* least, const char* most,
                          const std::string& where) {
    Counts counts;
    counts.least = count_at(schema, least, where).value_or(0);
    counts.most = count_at(schema, most, where).value_or(Expr::kUnbounded);
    if (counts.least > kMostCount) {
      refuse(where, fmt::format("'{}' is more than {}", least, kMostCount));
    }
    // A bound that no answer reaches is none; texts that long are cut off before.
    if (counts.most > kMostCount) counts.most = kMostCount;
    return counts;
  }

  Expr string(const Schema& schema, const std::string& where) {
    const Counts counts = counts_of(schema, "minLength", "maxLength", where);
    std::optional<std::string> pattern;
    RegexUse use = RegexUse::kInside;
    if (const auto at = schema.find("pattern"); at != schema.end()) {
      if (!at->is_string()) refuse(where, "'pattern' must be a string");
      pattern = at->get<std::string>();
    }
    if (const auto at = schema.find("format"); at != schema.end() && at->is_string()) {
      for (const auto& [name, expression] : kFormats) {
        if (*at != name) continue;
        if (pattern) refuse(where, "'format' beside 'pattern' is not supported");
        pattern = expression;
        use = RegexUse::kWhole;
      }
    }
    if (!pattern) {
      if (impossible(counts)) return choice({});
      return text(counts.least, counts.most);
    }
    if (counts.any()) refuse(where, "lengths beside 'pattern' or 'format' are not supported");
    return json_string_of(parse_regex(*pattern, use));
  }

  static bool impossible(const Counts& counts) {
    return counts.most != Expr::kUnbounded && counts.most < counts.least;
  }

  Expr array(const Schema& schema, const std::string& where, int depth) {
    Counts counts = counts_of(schema, "minItems", "maxItems", where);
    if (impossible(counts)) return choice({});
    std::vector<Expr> fixed;
    if (const auto at = schema.find("prefixItems"); at != schema.end()) {
      if (!at->is_array()) refuse(where, "'prefixItems' must be a list");
      for (const Schema& one : *at) {
        fixed.push_back(
            outlined(one, fmt::format("{}/prefixItems/{}", where, fixed.size()), depth + 1));
      }
    }
    const auto items = schema.find("items");
    if (items != schema.end() && items->is_array()) {
      refuse(where, "'items' as a list is not supported; use 'prefixItems'");
    }
    // Behind the fixed ones: anything if nothing is said of them, unless there are fixed ones.
    const bool closed = items == schema.end() ? !fixed.empty() : *items == false;
    const auto at_least = std::max(counts.least, static_cast<std::int64_t>(fixed.size()));
    std::optional<Expr> more;
    if (!closed) {
      more = items == schema.end() ? any() : outlined(*items, where + "/items", depth + 1);
    }
    return list(fixed, more, {at_least, counts.most}, where);
  }

  Expr list(const std::vector<Expr>& fixed, const std::optional<Expr>& more, const Counts& counts,
            const std::string& where) {
    const auto known = static_cast<std::int64_t>(fixed.size());
    if (counts.most != Expr::kUnbounded && counts.most < known) {
      refuse(where, "'maxItems' is less than the number of 'prefixItems'");
    }
    if (!more && counts.least > known) return choice({});
    std::vector<Expr> parts = {literal("["), space()};
    for (std::size_t i = 0; i < fixed.size(); ++i) {
      if (i > 0) parts.push_back(comma());
      parts.push_back(fixed[i]);
    }
    const auto rest_least = counts.least - known;
    const auto rest_most = counts.most == Expr::kUnbounded ? Expr::kUnbounded : counts.most - known;
    if (more && rest_most != 0) {
      const Expr next = sequence({comma(), *more});
      if (known > 0) {
        parts.push_back(repeat(next, rest_least, rest_most));
      } else {
        const auto after = rest_most == Expr::kUnbounded ? rest_most : rest_most - 1;
        const Expr some =
            sequence({*more, repeat(next, std::max<std::int64_t>(rest_least - 1, 0), after)});
        parts.push_back(rest_least > 0 ? some : optional(some));
      }
    }
    parts.push_back(space());
    parts.push_back(literal("]"));
    return sequence(std::move(parts));
  }

  struct Property {
    Expr text;  // name, colon and value
    bool required = false;
  };

  std::vector<Property> properties_of(const Schema& schema, const std::string& where, int depth) {
    const Schema named = schema.value("properties", Schema::object());
    const Schema required = schema.value("required", Schema::array());
    if (!named.is_object()) refuse(where, "'properties' must be an object");
    if (!required.is_array()) refuse(where, "'required' must be a list");
    std::set<std::string> must;
    for (const Schema& name : required) {
      if (!name.is_string()) refuse(where, "'required' must be a list of names");
      must.insert(name.get<std::string>());
    }
    std::vector<Property> all;
    const auto add = [&](const std::string& name, const Expr& text, bool is_required) {
      all.push_back({sequence({literal(Schema(name).dump() + ":"), space(), text}), is_required});
    };
    for (const auto& [name, one] : named.items()) {
      const bool is_required = must.erase(name) > 0;
      if (one == false && !is_required) continue;
      add(name, outlined(one, where + "/" + name, depth + 1), is_required);
    }
    const Schema others = schema.value("additionalProperties", Schema(true));
    for (const std::string& name : must) {
      add(name, outlined(others, where + "/" + name, depth + 1), true);
    }
    return all;
  }

  Expr object(const Schema& schema, const std::string& where, int depth) {
    const std::vector<Property> named = properties_of(schema, where, depth);
    const Counts counts = counts_of(schema, "minProperties", "maxProperties", where);
    const auto others = schema.find("additionalProperties");
    const bool says = others != schema.end();
    const bool open = says ? *others != false : named.empty();
    std::optional<Expr> other;
    if (open) {
      const Expr text =
          says ? outlined(*others, where + "/additionalProperties", depth + 1) : any();
      other = rule(rules_.add(where, sequence({other_name(schema), literal(":"), space(), text})));
    }
    if (named.empty()) return free_object(other, counts, where);
    if (counts.any()) {
      const auto required =
          std::count_if(named.begin(), named.end(), [](const Property& p) { return p.required; });
      const bool kept = counts.least <= required && (counts.most == Expr::kUnbounded ||
                                                     (!open && counts.most >= std::ssize(named)));
      if (!kept) refuse(where, "bounds on the number of named properties are not supported");
    }
    return named_object(named, other);
  }

  Expr other_name(const Schema& schema) {
    std::vector<std::string> names;
    const Schema properties = schema.value("properties", Schema::object());
    for (const auto& [name, one] : properties.items()) names.push_back(name);
    for (const Schema& name : schema.value("required", Schema::array())) names.push_back(name);
    if (!names.empty()) return json_string_except(names, rules_);
    return text();
  }

  Expr free_object(const std::optional<Expr>& other, const Counts& counts,
                   const std::string& where) {
    // A name may come twice, and then counts once.
    if (counts.least > 1) refuse(where, "'minProperties' of more than 1 is not supported");
    if (impossible(counts) || (!other && counts.least > 0)) return choice({});
    const bool none = !other || counts.most == 0;
    if (none) return sequence({literal("{"), space(), literal("}")});
    const auto after = counts.most == Expr::kUnbounded ? counts.most : counts.most - 1;
    Expr some = sequence({*other, repeat(sequence({comma(), *other}), 0, after)});
    if (counts.least == 0) some = optional(std::move(some));
    return sequence({literal("{"), space(), std::move(some), space(), literal("}")});
  }

  // From the last property to the first: what may follow when nothing has been written yet, and
  // when something has (then a comma comes first). Both are rules, so that they are said once.
  Expr named_object(const std::vector<Property>& named, const std::optional<Expr>& other) {
    Expr fresh, begun;
    if (other) {
      begun = repeat(sequence({comma(), *other}), 0, Expr::kUnbounded);
      fresh = optional(sequence({*other, begun}));
    }
    for (auto property = named.rbegin(); property != named.rend(); ++property) {
      const Expr text = rule(rules_.add("property", property->text));
      const Expr rest = rule(rules_.add("properties", std::move(begun)));
      begun = sequence({comma(), text, rest});
      Expr first = sequence({text, rest});
      if (property->required) {
        fresh = std::move(first);
      } else {
        begun = choice({std::move(begun), rest});
        fresh = choice({std::move(first), rule(rules_.add("properties", std::move(fresh)))});
      }
    }
    return sequence({literal("{"), space(), std::move(fresh), space(), literal("}")});
  }

  // Parts that every schema shares, as rules.
  Expr shared(std::int32_t& id, const char* name, Expr (*make)()) {
    if (id < 0) id = rules_.add(name, make());
    return rule(id);
  }
  Expr space() { return shared(space_, "space", json_space); }
  Expr character() { return shared(character_, "character", json_character); }
  Expr text(std::int64_t least = 0, std::int64_t most = Expr::kUnbounded) {
    return sequence({literal("\""), repeat(character(), least, most), literal("\"")});
  }
  Expr comma() { return sequence({literal(","), space()}); }

  // Any value.
  Expr any() {
    if (any_ >= 0) return rule(any_);
    any_ = rules_.add("value");
    const Expr member = sequence({text(), literal(":"), space(), rule(any_)});
    Expr body = choice({free_object(member, {}, "#"), list({}, rule(any_), {}, "#"), text(),
                        json_number({}), literal("true"), literal("false"), literal("null")});
    rules_.bodies[static_cast<std::size_t>(any_)] = std::move(body);
    return rule(any_);
  }

  const Schema& root_;
  RuleSet& rules_;
  int parts_ = 0;
  std::map<std::string, std::int32_t> references_;
  std::int32_t space_ = -1;
  std::int32_t character_ = -1;
  std::int32_t any_ = -1;
};

}  // namespace

Expr add_json_schema(std::string_view text, RuleSet& rules) {
  parse_json(text, "JSON schema");  // its bounds; the other keeps the order of properties
  const Schema root = Schema::parse(text.begin(), text.end());
  return SchemaCompiler(root, rules).compile();
}

}  // namespace nibble::grammar
