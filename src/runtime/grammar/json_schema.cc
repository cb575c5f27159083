#include "runtime/grammar/json_schema.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "runtime/grammar/json_containers.h"
#include "runtime/grammar/json_keywords.h"
#include "runtime/grammar/json_text.h"
#include "runtime/grammar/parse_regex.h"

namespace nibble::grammar {
namespace {

constexpr int kMostParts = 20'000;
constexpr int kDeepest = 64;

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

class SchemaCompiler {
 public:
  SchemaCompiler(const Schema& root, RuleSet& rules) : root_(root), rules_(rules), json_(rules) {}

  Expr compile() { return value(root_, "#", 0); }

 private:
  void count(const std::string& where, int depth) {
    if (++parts_ > kMostParts) {
      fail(ErrorKind::kUsage, "JSON schema: it has more than {} parts, references followed",
           kMostParts);
    }
    if (depth > kDeepest) refuse_schema(where.substr(0, 200), "it is nested too deeply");
  }

  // What a schema describes; a rule of its own, so that copies are cheap.
  Expr outlined(const Schema& schema, const std::string& where, int depth) {
    Expr body = value(schema, where, depth);
    return rule(rules_.add(where, std::move(body)));
  }

  Expr value(const Schema& schema, const std::string& where, int depth) {
    count(where, depth);
    if (schema.is_boolean()) return schema.get<bool>() ? json_.any() : choice({});
    if (!schema.is_object()) refuse_schema(where, "a schema must be an object, true or false");
    for (const char* const key : kRefused) {
      if (schema.contains(key)) refuse_schema(where, fmt::format("'{}' is not supported", key));
    }
    if (schema.contains("uniqueItems") && schema["uniqueItems"] != false) {
      refuse_schema(where, "'uniqueItems' is not supported");
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
    if (!reference.is_string()) refuse_schema(where, "$ref must be a string");
    const auto text = reference.get<std::string>();
    if (!text.starts_with('#'))
      refuse_schema(where, "$ref '" + text + "' leads out of the document");
    try {
      return root_.at(Schema::json_pointer(text.substr(1)));
    } catch (const Schema::exception&) {
      refuse_schema(where, "$ref '" + text + "' leads nowhere");
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
        refuse_schema(where,
                      fmt::format("alternatives {} and {} of oneOf could both hold; use anyOf, or "
                                  "give them different types or a property of different const",
                                  i, k));
      }
    }
  }

  Expr constants(const Schema& schema, const Schema& values, const std::string& where) {
    if (!values.is_array()) refuse_schema(where, "'enum' must be a list");
    const std::set<std::string> types = types_of_keyword(schema);
    for (const auto& [key, value] : schema.items()) {
      const bool more = std::any_of(std::begin(kMeant), std::end(kMeant),
                                    [&, k = key](const auto& meant) { return k == meant.first; });
      if (more)
        refuse_schema(where, fmt::format("'{}' beside 'enum' or 'const' is not supported", key));
    }
    std::vector<Expr> all;
    for (const Schema& one : values) {
      count(where, 0);
      const std::string type = json_type_of(one);
      if (!types.contains(type) && !(type == "integer" && types.contains("number"))) continue;
      all.push_back(literal(one.dump()));
    }
    return choice(std::move(all));
  }

  static std::set<std::string> types_of_keyword(const Schema& schema) {
    if (!schema.contains("type")) return json_types();
    return types_of({{"type", schema["type"]}});
  }

  Expr typed(const Schema& schema, const std::string& where, int depth) {
    std::vector<std::string> types;
    if (schema.contains("type")) {
      const Schema& type = schema["type"];
      for (const Schema& one : type.is_array() ? type : Schema::array({type})) {
        const bool known = one.is_string() && json_types().contains(one.get<std::string>());
        if (!known) refuse_schema(where, "'type' names what is no type of JSON");
        types.push_back(one.get<std::string>());
      }
    } else {
      for (const auto& [key, type] : kMeant) {
        const bool known = std::find(types.begin(), types.end(), type) != types.end();
        if (schema.contains(key) && !known) types.emplace_back(type);
      }
      if (types.empty() && schema.contains("format")) types.emplace_back("string");
      if (types.empty()) return json_.any();
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

  Expr string(const Schema& schema, const std::string& where) {
    const Counts counts = counts_of(schema, "minLength", "maxLength", where);
    std::optional<std::string> pattern;
    RegexUse use = RegexUse::kInside;
    if (const auto at = schema.find("pattern"); at != schema.end()) {
      if (!at->is_string()) refuse_schema(where, "'pattern' must be a string");
      pattern = at->get<std::string>();
    }
    if (const auto at = schema.find("format"); at != schema.end() && at->is_string()) {
      for (const auto& [name, expression] : kFormats) {
        if (*at != name) continue;
        if (pattern) refuse_schema(where, "'format' beside 'pattern' is not supported");
        pattern = expression;
        use = RegexUse::kWhole;
      }
    }
    if (!pattern) {
      if (counts.impossible()) return choice({});
      return json_.text(counts.least, counts.most);
    }
    if (counts.any())
      refuse_schema(where, "lengths beside 'pattern' or 'format' are not supported");
    return json_string_of(parse_regex(*pattern, use));
  }

  Expr array(const Schema& schema, const std::string& where, int depth) {
    Counts counts = counts_of(schema, "minItems", "maxItems", where);
    if (counts.impossible()) return choice({});
    std::vector<Expr> fixed;
    if (const auto at = schema.find("prefixItems"); at != schema.end()) {
      if (!at->is_array()) refuse_schema(where, "'prefixItems' must be a list");
      for (const Schema& one : *at) {
        fixed.push_back(
            outlined(one, fmt::format("{}/prefixItems/{}", where, fixed.size()), depth + 1));
      }
    }
    const auto items = schema.find("items");
    if (items != schema.end() && items->is_array()) {
      refuse_schema(where, "'items' as a list is not supported; use 'prefixItems'");
    }
    // Behind the fixed ones: anything if nothing is said of them, unless there are fixed ones.
    const bool closed = items == schema.end() ? !fixed.empty() : *items == false;
    const auto at_least = std::max(counts.least, static_cast<std::int64_t>(fixed.size()));
    std::optional<Expr> more;
    if (!closed) {
      more = items == schema.end() ? json_.any() : outlined(*items, where + "/items", depth + 1);
    }
    if (counts.most != Expr::kUnbounded && counts.most < std::ssize(fixed)) {
      refuse_schema(where, "'maxItems' is less than the number of 'prefixItems'");
    }
    return json_.list(fixed, more, {at_least, counts.most});
  }

  std::vector<Property> properties_of(const Schema& schema, const std::string& where, int depth) {
    const Schema named = schema.value("properties", Schema::object());
    const Schema required = schema.value("required", Schema::array());
    if (!named.is_object()) refuse_schema(where, "'properties' must be an object");
    if (!required.is_array()) refuse_schema(where, "'required' must be a list");
    std::set<std::string> must;
    for (const Schema& name : required) {
      if (!name.is_string()) refuse_schema(where, "'required' must be a list of names");
      must.insert(name.get<std::string>());
    }
    std::vector<Property> all;
    const auto add = [&](const std::string& name, const Expr& text, bool is_required) {
      all.push_back(
          {sequence({literal(Schema(name).dump() + ":"), json_.space(), text}), is_required});
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
          says ? outlined(*others, where + "/additionalProperties", depth + 1) : json_.any();
      other = rule(
          rules_.add(where, sequence({other_name(schema), literal(":"), json_.space(), text})));
    }
    if (named.empty()) {
      // A name may come twice, and then counts once.
      if (counts.least > 1) refuse_schema(where, "'minProperties' of more than 1 is not supported");
      return json_.free_object(other, counts);
    }
    if (counts.any()) {
      const auto required =
          std::count_if(named.begin(), named.end(), [](const Property& p) { return p.required; });
      const bool kept = counts.least <= required && (counts.most == Expr::kUnbounded ||
                                                     (!open && counts.most >= std::ssize(named)));
      if (!kept) refuse_schema(where, "bounds on the number of named properties are not supported");
    }
    return json_.named_object(named, other);
  }

  Expr other_name(const Schema& schema) {
    std::vector<std::string> names;
    const Schema properties = schema.value("properties", Schema::object());
    for (const auto& [name, one] : properties.items()) names.push_back(name);
    for (const Schema& name : schema.value("required", Schema::array())) names.push_back(name);
    if (!names.empty()) return json_string_except(names, rules_);
    return json_.text();
  }

  const Schema& root_;
  RuleSet& rules_;
  JsonContainers json_;
  int parts_ = 0;
  std::map<std::string, std::int32_t> references_;
};

}  // namespace

Expr add_json_schema(std::string_view text, RuleSet& rules) {
  parse_json(text, "JSON schema");  // its bounds; the other keeps the order of properties
  const Schema root = Schema::parse(text.begin(), text.end());
  return SchemaCompiler(root, rules).compile();
}

}  // namespace nibble::grammar
