// Files compiled into the program (nibble_embed() of cmake/embed.cmake).
#pragma once

#include <string_view>

namespace nibble {

struct EmbeddedFile {
  std::string_view name;  // file name without its folder
  std::string_view content;
};

}  // namespace nibble
