// Rounding to a sorted set of levels.
#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

namespace nibble {

// Thread-safe.
class Rounder {
 public:
  // levels: sorted, at least one.
  explicit Rounder(std::vector<double> levels) : levels_(std::move(levels)) {
    for (std::size_t i = 0; i + 1 < levels_.size(); ++i) {
      borders_.push_back((levels_[i] + levels_[i + 1]) / 2);
    }
  }

  // The nearest level; of two equally near ones the lower.
  double nearest(double x) const {
    const auto at = std::lower_bound(borders_.begin(), borders_.end(), x);
    return levels_[static_cast<std::size_t>(at - borders_.begin())];
  }

  // Sum of the squared errors of values rounded to levels * scale.
  double error(std::span<const float> values, double scale) const {
    const double inverse = 1 / scale;
    double sum = 0;
    for (const float v : values) {
      const double x = static_cast<double>(v) * inverse;
      const double d = x - nearest(x);
      sum += d * d;
    }
    return sum * scale * scale;
  }

 private:
  std::vector<double> levels_, borders_;
};

}  // namespace nibble
