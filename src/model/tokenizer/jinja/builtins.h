// Methods, filters and tests of Jinja values: pure functions.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "model/tokenizer/jinja/value.h"

namespace nibble::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument by position or name, or `fallback`.
  Value get(std::size_t position, std::string_view name, Value fallback = {}) const;
};

// object.name(arguments). kUnsupported for methods that are not known.
Value call_method(const Value& object, const std::string& name, const Arguments& arguments);

// value | name(arguments)
Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments);

// value is name(arguments)
bool apply_test(const std::string& name, const Value& value, const Arguments& arguments);

// What a loop over the value visits: items, keys or characters. kCorrupt when there is none.
List items_of(const Value& value);

// value.name for data: an entry of a dictionary, or undefined. kCorrupt when the value is
// undefined itself.
Value attribute(const Value& value, const std::string& name);

}  // namespace nibble::jinja
