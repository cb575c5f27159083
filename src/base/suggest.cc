#include "base/suggest.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace nibble {
namespace {

// Names are short; longer text is cut so that hostile input cannot make this quadratic.
constexpr std::size_t kMaxLength = 64;

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::vector<std::string> nearest_names(std::string_view text,
                                       std::span<const std::string> candidates, std::size_t limit) {
  text = text.substr(0, kMaxLength);
  std::vector<std::pair<std::size_t, std::size_t>> near;  // distance, index
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const std::string_view name = std::string_view(candidates[i]).substr(0, kMaxLength);
    const std::size_t distance = edit_distance(text, name);
    if (2 * distance <= std::max(text.size(), name.size())) near.emplace_back(distance, i);
  }
  std::sort(near.begin(), near.end());
  near.resize(std::min(near.size(), limit));
  std::vector<std::string> names;
  for (const auto& [distance, index] : near) names.push_back(candidates[index]);
  return names;
}

std::string did_you_mean(std::string_view text, std::span<const std::string> candidates) {
  const std::vector<std::string> names = nearest_names(text, candidates);
  if (names.empty()) return "";
  std::string result = "; did you mean ";
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) result += i + 1 == names.size() ? " or " : ", ";
    result += names[i];
  }
  return result + "?";
}

}  // namespace nibble
