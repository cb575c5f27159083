#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace nibble {

// The q-quantile, 0 <= q <= 1, with linear interpolation between the two nearest values (the
// default of NumPy). NaN for no values.
inline double quantile(std::vector<double> values, double q) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double position = q * static_cast<double>(values.size() - 1);
  const double below = std::floor(position);
  const auto nth = values.begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(values.begin(), nth, values.end());
  const double low = *nth;
  if (nth + 1 == values.end()) return low;
  const double high = *std::min_element(nth + 1, values.end());
  return low + (position - below) * (high - low);
}

}  // namespace nibble
