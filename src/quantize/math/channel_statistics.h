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
  // E[x_j^2]; empty when no row was seen.
  std::vector<float> second_moment() const;
  // sqrt(E[x_j^2]); empty when no row was seen.
  std::vector<float> root_mean_square() const;
};

// Adds rows [rows, channels] of x for channels [begin, end). Results do not depend on how channels
// are split among calls. False, with nothing said of the state, when a NaN or infinity is met.
bool accumulate(ChannelStatistics& statistics, const float* x, std::int64_t rows,
                std::int64_t channels, std::int64_t begin, std::int64_t end);

// The statistics of x_j / s_j.
void divide_channels(ChannelStatistics& statistics, std::span<const float> s);

}  // namespace nibble
