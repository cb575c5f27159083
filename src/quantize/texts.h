// Texts of runs; those compiled into the program are for runs that name none of their own (see
// data/README.md).
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

std::string_view bundled_calibration_text();
std::string_view bundled_verification_text();

// What the files hold, or the bundled text when none is named. kUsage for a file that is not UTF-8.
std::vector<std::string> calibration_texts(std::span<const std::filesystem::path> files);

// The share of `text`, in bytes, that is found in `other` in pieces of at least 128 bytes, wherever
// they stand; at most 1.
double overlap(std::string_view text, std::string_view other);

}  // namespace nibble
