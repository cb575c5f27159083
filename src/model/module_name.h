// Names of modules from the patterns of a NameSpec.
#pragma once

#include <cstdint>
#include <string>

namespace nibble {

// The pattern with "{}" replaced by the layer and "{e}" by the expert, where it has them.
std::string expand_pattern(std::string pattern, std::int64_t layer, std::int64_t expert = 0);

}  // namespace nibble
