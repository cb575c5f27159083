// Typed access to the fields of hostile JSON objects: a missing or mistyped one is kCorrupt.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"

namespace nibble {

// The value of `key`, or null when `object` lacks it (or holds null). kCorrupt when `object` is no
// object.
const Json& field(const Json& object, std::string_view key, std::string_view what);

std::string string_field(const Json& object, std::string_view key, std::string_view what);
std::string string_field_or(const Json& object, std::string_view key, std::string_view fallback,
                            std::string_view what);
bool bool_field_or(const Json& object, std::string_view key, bool fallback, std::string_view what);
std::int64_t int_field(const Json& object, std::string_view key, std::string_view what);
std::int64_t int_field_or(const Json& object, std::string_view key, std::int64_t fallback,
                          std::string_view what);
const Json& array_field(const Json& object, std::string_view key, std::string_view what);

// An array of objects under `key` handed to `make` one by one, the results collected: the shape of
// every "Sequence" part.
template <class Make>
auto make_all(const Json& object, std::string_view key, std::string_view what, const Make& make) {
  std::vector<decltype(make(object))> made;
  for (const Json& part : array_field(object, key, what)) made.push_back(make(part));
  return made;
}

}  // namespace nibble
