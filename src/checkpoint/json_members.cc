#include "checkpoint/json_members.h"

#include "base/error.h"

namespace nibble {

const Json* member(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string text_member(const Json& object, const char* key, const std::string& otherwise,
                        const std::string& what) {
  const Json* value = member(object, key);
  if (value == nullptr) return otherwise;
  if (!value->is_string()) fail(ErrorKind::kCorrupt, "{}: '{}' is no string", what, key);
  return value->get<std::string>();
}

std::int64_t int_member(const Json& object, const char* key, std::int64_t otherwise,
                        const std::string& what) {
  const Json* value = member(object, key);
  if (value == nullptr) return otherwise;
  if (!value->is_number_integer()) fail(ErrorKind::kCorrupt, "{}: '{}' is no integer", what, key);
  return value->get<std::int64_t>();
}

bool bool_member(const Json& object, const char* key, bool otherwise, const std::string& what) {
  const Json* value = member(object, key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) fail(ErrorKind::kCorrupt, "{}: '{}' is no boolean", what, key);
  return value->get<bool>();
}

}  // namespace nibble
