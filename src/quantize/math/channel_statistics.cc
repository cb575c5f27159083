#include "quantize/math/channel_statistics.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble {

std::vector<float> ChannelStatistics::second_moment() const {
  std::vector<float> result;
  if (rows == 0) return result;
  result.reserve(sum_squares.size());
  for (const double sum : sum_squares) {
    result.push_back(static_cast<float>(sum / static_cast<double>(rows)));
  }
  return result;
}

std::vector<float> ChannelStatistics::root_mean_square() const {
  std::vector<float> result = second_moment();
  for (float& value : result) value = std::sqrt(value);
  return result;
}

bool ChannelStatistics::is_finite() const {
  return std::ranges::all_of(sum_squares, [](double sum) { return std::isfinite(sum); });
}

void divide_channels(ChannelStatistics& statistics, std::span<const float> s) {
  NIBBLE_CHECK(static_cast<std::int64_t>(s.size()) == statistics.channels());
  for (std::size_t j = 0; j < s.size(); ++j) {
    statistics.max_abs[j] /= s[j];
    statistics.sum_squares[j] /= static_cast<double>(s[j]) * static_cast<double>(s[j]);
  }
}

}  // namespace nibble
