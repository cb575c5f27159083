#include "model/module_name.h"

#include <string_view>

namespace nibble {

std::string expand_pattern(std::string pattern, std::int64_t layer, std::int64_t expert) {
  const auto replace = [&](std::string_view mark, std::int64_t value) {
    const std::size_t at = pattern.find(mark);
    if (at != std::string::npos) pattern.replace(at, mark.size(), std::to_string(value));
  };
  replace("{}", layer);
  replace("{e}", expert);
  return pattern;
}

}  // namespace nibble
