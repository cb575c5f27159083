#include <algorithm>
#include <string>

#include "base/error.h"
#include "runtime/grammar/json_keywords.h"
#include "runtime/grammar/json_schema.h"

namespace nibble::grammar {
namespace {

bool is_any(const Schema& schema) {
  return schema == true || (schema.is_object() && schema.empty());
}

Schema as_list(const Schema& value) { return value.is_array() ? value : Schema::array({value}); }

Schema common_elements(const Schema& a, const Schema& b) {
  Schema both = Schema::array();
  const Schema others = as_list(b);
  for (const Schema& one : as_list(a)) {
    if (std::find(others.begin(), others.end(), one) != others.end()) both.push_back(one);
  }
  return both;
}

Schema united(const Schema& a, const Schema& b) {
  Schema all = a;
  for (const Schema& one : b) {
    if (std::find(all.begin(), all.end(), one) == all.end()) all.push_back(one);
  }
  return all;
}

bool is_one_of(const std::string& key, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* name) { return key == name; });
}

// Whether a schema lets properties through that it does not name.
bool is_open(const Schema& schema) {
  const auto more = schema.find("additionalProperties");
  return more == schema.end() || is_any(*more);
}

bool same_names(const Schema& a, const Schema& b) {
  const auto names = [](const Schema& schema) {
    std::vector<std::string> all;
    const Schema properties = schema.value("properties", Schema::object());
    for (const auto& [name, value] : properties.items()) {
      all.push_back(name);
    }
    std::sort(all.begin(), all.end());
    return all;
  };
  return names(a) == names(b);
}

}  // namespace

Schema merged_schemas(const Schema& a, const Schema& b, const std::string& where) {
  if (is_any(a)) return b;
  if (is_any(b)) return a;
  if (a == false || b == false) return false;
  if (!is_open(a) || !is_open(b)) {
    if (!same_names(a, b)) {
      fail(ErrorKind::kUsage,
           "JSON schema, {}: allOf or anyOf beside additionalProperties is not supported unless "
           "all name the same properties",
           where);
    }
  }
  Schema result = a;
  for (const auto& [key, value] : b.items()) {
    const auto at = result.find(key);
    if (at == result.end()) {
      result[key] = value;
    } else if (*at == value || is_one_of(key, {"title", "description", "default", "examples"})) {
      continue;
    } else if (key == "properties" && at->is_object() && value.is_object()) {
      for (const auto& [name, schema] : value.items()) {
        (*at)[name] = at->contains(name) ? merged_schemas((*at)[name], schema, where) : schema;
      }
    } else if (key == "required" && at->is_array() && value.is_array()) {
      *at = united(*at, value);
    } else if (key == "type" || key == "enum") {
      *at = common_elements(*at, value);
    } else if (is_one_of(key, {"minimum", "minLength", "minItems", "minProperties"}) &&
               at->is_number() && value.is_number()) {
      if (value.get<double>() > at->get<double>()) *at = value;
    } else if (is_one_of(key, {"maximum", "maxLength", "maxItems", "maxProperties"}) &&
               at->is_number() && value.is_number()) {
      if (value.get<double>() < at->get<double>()) *at = value;
    } else {
      fail(ErrorKind::kUsage, "JSON schema, {}: two different '{}' for one value", where, key);
    }
  }
  return result;
}

}  // namespace nibble::grammar
