// Text inside HTML and XML.
#pragma once

#include <string>

namespace nibble {

// The characters & < > " escaped.
std::string escape_markup(const std::string& text);

}  // namespace nibble
