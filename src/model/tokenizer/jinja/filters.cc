#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/error.h"
#include "model/tokenizer/jinja/builtins.h"
#include "model/tokenizer/unicode.h"

namespace nibble::jinja {
namespace {

Value length(const Value& value) {
  if (const Dict* dict = value.dict()) return static_cast<std::int64_t>(dict->entries.size());
  if (const std::string* text = value.text()) {
    return static_cast<std::int64_t>(to_utf32(*text).size());
  }
  return static_cast<std::int64_t>(items_of(value).size());
}

// attribute="a.b" names a path.
Value path(Value value, std::string_view names) {
  while (!names.empty()) {
    const std::size_t dot = std::min(names.find('.'), names.size());
    value = attribute(value, std::string(names.substr(0, dot)));
    names.remove_prefix(std::min(dot + 1, names.size()));
  }
  return value;
}

std::string text_of(const Value& value, const char* filter) {
  if (value.text() == nullptr) {
    fail(ErrorKind::kCorrupt, "chat template: filter {} needs a text, not {}", filter,
         type_name(value));
  }
  return *value.text();
}

Value join(const Value& value, const Arguments& arguments) {
  const Value names = arguments.get(1, "attribute", nullptr);
  std::string out;
  bool first = true;
  const std::string separator = to_text(arguments.get(0, "d", std::string()));
  for (const Value& item : items_of(value)) {
    if (!first) out += separator;
    first = false;
    out += to_text(names.is_none() ? item : path(item, text_of(names, "join")));
  }
  return out;
}

Value fallback(const Value& value, const Arguments& arguments) {
  const bool also_false = truthy(arguments.get(1, "boolean", false));
  const bool missing = value.is_undefined() || (also_false && !truthy(value));
  return missing ? arguments.get(0, "default_value", std::string()) : value;
}

Value json_text(const Value& value, const Arguments& arguments) {
  const Value indent = arguments.get(4, "indent", nullptr);
  const auto* spaces = indent.as<std::int64_t>();
  if (spaces != nullptr && (*spaces < 0 || *spaces > 32)) {
    fail(ErrorKind::kCorrupt, "chat template: indent {}", *spaces);
  }
  return to_json(value, spaces == nullptr ? -1 : static_cast<int>(*spaces));
}

Value map_items(const Value& value, const Arguments& arguments) {
  const Value names = arguments.get(SIZE_MAX, "attribute", nullptr);
  List out;
  for (const Value& item : items_of(value)) {
    if (!names.is_none()) {
      out.push_back(path(item, text_of(names, "map")));
    } else {
      Arguments rest = arguments;
      if (rest.positional.empty()) fail(ErrorKind::kCorrupt, "chat template: map without filter");
      rest.positional.erase(rest.positional.begin());
      out.push_back(apply_filter(text_of(arguments.positional[0], "map"), item, rest));
    }
  }
  return Value::list(std::move(out));
}

// select, reject (by the item) and selectattr, rejectattr (by an attribute of it).
Value choose(const Value& value, const Arguments& arguments, bool by_attribute, bool wanted) {
  Arguments rest = arguments;
  const auto take = [&]() -> std::string {
    if (rest.positional.empty()) return "";
    const std::string text = text_of(rest.positional[0], "select");
    rest.positional.erase(rest.positional.begin());
    return text;
  };
  const std::string names = by_attribute ? take() : "";
  const std::string test = take();
  List out;
  for (const Value& item : items_of(value)) {
    const Value tested = by_attribute ? path(item, names) : item;
    const bool passes = test.empty() ? truthy(tested) : apply_test(test, tested, rest);
    if (passes == wanted) out.push_back(item);
  }
  return Value::list(std::move(out));
}

Value edge_item(const Value& value, bool first) {
  const List items = items_of(value);
  if (items.empty()) return Value::undefined(first ? "first" : "last");
  return first ? items.front() : items.back();
}

Value to_integer(const Value& value, const Arguments& arguments) {
  const Value otherwise = arguments.get(0, "default", std::int64_t{0});
  if (value.is_number() || value.as<bool>() != nullptr) {
    const double number = std::trunc(value.number());
    if (!(std::abs(number) < 9e18)) return otherwise;
    if (value.as<std::int64_t>() != nullptr) return value;
    return static_cast<std::int64_t>(number);
  }
  if (value.text() == nullptr) return otherwise;
  const Value stripped = call_method(value, "strip", {});
  const std::string& text = *stripped.text();
  std::int64_t number = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  return parsed.ec == std::errc() && parsed.ptr == end ? Value(number) : otherwise;
}

Value reversed(const Value& value) {
  List items = items_of(value);
  std::reverse(items.begin(), items.end());
  if (value.text() == nullptr) return Value::list(std::move(items));
  std::string out;
  for (const Value& item : items) out += *item.text();
  return out;
}

// Lines after the first move to the right; empty ones stay as they are.
Value indented(const Value& value, const Arguments& arguments) {
  const Value width = arguments.get(0, "width", std::int64_t{4});
  const auto* spaces = width.as<std::int64_t>();
  if (spaces == nullptr || *spaces < 0 || *spaces > 100) {
    fail(ErrorKind::kCorrupt, "chat template: indent without a sane width");
  }
  const std::string margin(static_cast<std::size_t>(*spaces), ' ');
  std::string out = truthy(arguments.get(1, "first", false)) ? margin : "";
  const std::string text = to_text(value);
  for (std::size_t i = 0; i < text.size(); ++i) {
    out += text[i];
    if (text[i] == '\n' && i + 1 < text.size() && text[i + 1] != '\n') out += margin;
  }
  return out;
}

Value method_of_text(const Value& value, const char* method, const Arguments& arguments) {
  return call_method(Value(to_text(value)), method, arguments);
}

using Filter = Value (*)(const Value&, const Arguments&);

const std::map<std::string, Filter>& filters() {
  using V = const Value&;
  using A = const Arguments&;
  static const std::map<std::string, Filter> kFilters = {
      {"trim", [](V v, A a) { return method_of_text(v, "strip", a); }},
      {"upper", [](V v, A a) { return method_of_text(v, "upper", a); }},
      {"lower", [](V v, A a) { return method_of_text(v, "lower", a); }},
      {"title", [](V v, A a) { return method_of_text(v, "title", a); }},
      {"capitalize", [](V v, A a) { return method_of_text(v, "capitalize", a); }},
      {"replace", [](V v, A a) { return method_of_text(v, "replace", a); }},
      {"length", [](V v, A) { return length(v); }},
      {"count", [](V v, A) { return length(v); }},
      {"join", join},
      {"default", fallback},
      {"d", fallback},
      {"tojson", json_text},
      {"first", [](V v, A) { return edge_item(v, true); }},
      {"last", [](V v, A) { return edge_item(v, false); }},
      {"list", [](V v, A) { return Value::list(items_of(v)); }},
      {"string", [](V v, A) -> Value { return to_text(v); }},
      {"safe", [](V v, A) { return v; }},
      {"int", to_integer},
      {"items",
       [](V v, A a) { return v.is_undefined() ? Value::list({}) : call_method(v, "items", a); }},
      {"map", map_items},
      {"select", [](V v, A a) { return choose(v, a, false, true); }},
      {"reject", [](V v, A a) { return choose(v, a, false, false); }},
      {"selectattr", [](V v, A a) { return choose(v, a, true, true); }},
      {"rejectattr", [](V v, A a) { return choose(v, a, true, false); }},
      {"reverse", [](V v, A) { return reversed(v); }},
      {"indent", indented},
  };
  return kFilters;
}

using Test = bool (*)(const Value&, const Arguments&);

const std::map<std::string, Test>& tests() {
  using V = const Value&;
  using A = const Arguments&;
  static const auto equals = [](V v, A a) { return equal(v, a.get(0, "other")); };
  static const auto contained = [](V v, A a) {
    const List items = items_of(a.get(0, "seq"));
    return std::any_of(items.begin(), items.end(), [&](V item) { return equal(item, v); });
  };
  static const std::map<std::string, Test> kTests = {
      {"defined", [](V v, A) { return !v.is_undefined(); }},
      {"undefined", [](V v, A) { return v.is_undefined(); }},
      {"none", [](V v, A) { return v.is_none(); }},
      {"string", [](V v, A) { return v.text() != nullptr; }},
      {"mapping", [](V v, A) { return v.dict() != nullptr && !v.dict()->is_namespace; }},
      {"sequence",
       [](V v, A) { return v.text() != nullptr || v.list() != nullptr || v.dict() != nullptr; }},
      {"iterable",
       [](V v, A) {
         return v.text() != nullptr || v.list() != nullptr || v.dict() != nullptr ||
                v.is_undefined();
       }},
      {"number", [](V v, A) { return v.is_number() || v.as<bool>() != nullptr; }},
      {"integer", [](V v, A) { return v.as<std::int64_t>() != nullptr; }},
      {"float", [](V v, A) { return v.as<double>() != nullptr; }},
      {"boolean", [](V v, A) { return v.as<bool>() != nullptr; }},
      {"true", [](V v, A) { return v.as<bool>() != nullptr && *v.as<bool>(); }},
      {"false", [](V v, A) { return v.as<bool>() != nullptr && !*v.as<bool>(); }},
      {"callable", [](V v, A) { return v.as<Function>() != nullptr; }},
      {"odd", [](V v, A) { return v.is_number() && std::fmod(v.number(), 2) != 0; }},
      {"even", [](V v, A) { return v.is_number() && std::fmod(v.number(), 2) == 0; }},
      {"divisibleby",
       [](V v, A a) {
         const Value by = a.get(0, "num");
         return v.is_number() && by.is_number() && by.number() != 0 &&
                std::fmod(v.number(), by.number()) == 0;
       }},
      {"equalto", equals},
      {"eq", equals},
      {"ne", [](V v, A a) { return !equal(v, a.get(0, "other")); }},
      {"in", contained},
  };
  return kTests;
}

}  // namespace

Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments) {
  const auto it = filters().find(name);
  if (it == filters().end()) fail(ErrorKind::kUnsupported, "chat template: filter '{}'", name);
  return it->second(value, arguments);
}

bool apply_test(const std::string& name, const Value& value, const Arguments& arguments) {
  const auto it = tests().find(name == "==" ? "eq" : name);
  if (it == tests().end()) fail(ErrorKind::kUnsupported, "chat template: test '{}'", name);
  return it->second(value, arguments);
}

}  // namespace nibble::jinja
