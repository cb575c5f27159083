#include "model/tokenizer/json_fields.h"

#include "base/error.h"

namespace nibble {
namespace {

[[noreturn]] void mistyped(std::string_view what, std::string_view key, const char* wanted) {
  fail(ErrorKind::kCorrupt, "{}: '{}' is missing or not {}", what, key, wanted);
}

const Json kNull;

}  // namespace

const Json& field(const Json& object, std::string_view key, std::string_view what) {
  if (!object.is_object()) {
    fail(ErrorKind::kCorrupt, "{}: an object with '{}' expected, found {}", what, key,
         object.type_name());
  }
  const auto it = object.find(key);
  return it == object.end() ? kNull : *it;
}

std::string string_field(const Json& object, std::string_view key, std::string_view what) {
  const Json& value = field(object, key, what);
  if (!value.is_string()) mistyped(what, key, "a string");
  return value.get<std::string>();
}

std::string string_field_or(const Json& object, std::string_view key, std::string_view fallback,
                            std::string_view what) {
  if (field(object, key, what).is_null()) return std::string(fallback);
  return string_field(object, key, what);
}

bool bool_field_or(const Json& object, std::string_view key, bool fallback, std::string_view what) {
  const Json& value = field(object, key, what);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) mistyped(what, key, "a boolean");
  return value.get<bool>();
}

std::int64_t int_field(const Json& object, std::string_view key, std::string_view what) {
  const Json& value = field(object, key, what);
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX);
  if (!fits) mistyped(what, key, "an integer");
  return value.get<std::int64_t>();
}

std::int64_t int_field_or(const Json& object, std::string_view key, std::int64_t fallback,
                          std::string_view what) {
  if (field(object, key, what).is_null()) return fallback;
  return int_field(object, key, what);
}

const Json& array_field(const Json& object, std::string_view key, std::string_view what) {
  const Json& value = field(object, key, what);
  if (!value.is_array()) mistyped(what, key, "an array");
  return value;
}

}  // namespace nibble
