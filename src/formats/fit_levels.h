// Levels for values that are given one by one, each with a weight.
#pragma once

#include <cstddef>
#include <vector>

namespace nibble {

struct WeightedValue {
  float value = 0;
  double weight = 1;  // >= 0
};

// `count` levels in rising order with a small weighted squared error of the nearest level: Lloyd's
// fixed point (Lloyd 1982, Max 1960; one-dimensional k-means), reached from the levels that are
// best for many of them (equal steps of the integral of density^(1/3), Panter & Dite 1951). Every
// level is the weighted mean of the values nearest to it. With as many distinct values as levels,
// or fewer, the values themselves. No values: zeros.
std::vector<float> lloyd_max_levels(std::vector<WeightedValue> values, std::size_t count);

// The quantiles (i + 1/2) / count, by weight, in rising order.
std::vector<float> quantile_levels(std::vector<WeightedValue> values, std::size_t count);

}  // namespace nibble
