// What is known of each channel of an activation: [channels] values, gathered over rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nibble {

struct ChannelStatistics {
  std::vector<float> max_abs;       // max |x_j|
  std::vector<double> sum_squares;  // sum of x_j^2
  std::int64_t rows = 0;

  std::int64_t channels() const { return static_cast<std::int64_t>(max_abs.size()); }
  // False when a NaN or infinity was met.
  bool is_finite() const;
  // E[x_j^2]; empty when no row was seen.
  std::vector<float> second_moment() const;
  // sqrt(E[x_j^2]); empty when no row was seen.
  std::vector<float> root_mean_square() const;
};

// The statistics of x_j / s_j.
void divide_channels(ChannelStatistics& statistics, std::span<const float> s);

}  // namespace nibble
