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

bool accumulate(ChannelStatistics& statistics, const float* x, std::int64_t rows,
                std::int64_t channels, std::int64_t begin, std::int64_t end) {
  NIBBLE_CHECK(statistics.channels() == channels && begin >= 0 && end <= channels);
  float* max_abs = statistics.max_abs.data();
  double* sum = statistics.sum_squares.data();
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* values = x + row * channels;
    for (std::int64_t j = begin; j < end; ++j) {
      const float magnitude = std::abs(values[j]);
      max_abs[j] = magnitude > max_abs[j] ? magnitude : max_abs[j];
      sum[j] += static_cast<double>(values[j]) * static_cast<double>(values[j]);
    }
  }
  // NaN and infinity both leave a sum that is not finite.
  return std::all_of(sum + begin, sum + end, [](double v) { return std::isfinite(v); });
}

void divide_channels(ChannelStatistics& statistics, std::span<const float> s) {
  NIBBLE_CHECK(static_cast<std::int64_t>(s.size()) == statistics.channels());
  for (std::size_t j = 0; j < s.size(); ++j) {
    statistics.max_abs[j] /= s[j];
    statistics.sum_squares[j] /= static_cast<double>(s[j]) * static_cast<double>(s[j]);
  }
}

}  // namespace nibble
