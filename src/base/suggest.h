// "did you mean": names near a misspelt one, for error messages.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Up to `limit` of `candidates` with the least edit distance (Levenshtein) to `text`, nearest
// first, ties in the order given; none further away than half the length of the longer string.
std::vector<std::string> nearest_names(std::string_view text,
                                       std::span<const std::string> candidates,
                                       std::size_t limit = 3);

// "; did you mean a, b or c?" or "" when nothing is near.
std::string did_you_mean(std::string_view text, std::span<const std::string> candidates);

}  // namespace nibble
