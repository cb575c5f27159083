// Members of the quantization configs of conventions: absent and null are the same, wrong types are
// kCorrupt, naming the file.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"

namespace nibble {

// Null when the member is absent or null.
const Json* member(const Json& object, const char* key);

std::string text_member(const Json& object, const char* key, const std::string& otherwise,
                        const std::string& what);
std::int64_t int_member(const Json& object, const char* key, std::int64_t otherwise,
                        const std::string& what);
bool bool_member(const Json& object, const char* key, bool otherwise, const std::string& what);

}  // namespace nibble
