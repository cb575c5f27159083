// Texts compiled into the program, for runs that name none of their own (see data/README.md).
#pragma once

#include <string_view>

namespace nibble {

std::string_view bundled_calibration_text();
std::string_view bundled_verification_text();

// The share of `text`, in bytes, that is found in `other` in pieces of at least 128 bytes, wherever
// they stand; at most 1.
double overlap(std::string_view text, std::string_view other);

}  // namespace nibble
