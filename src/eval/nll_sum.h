// Running sums over per-token losses.
#pragma once

#include <cstdint>

#include "eval/perplexity.h"

namespace nibble {

// Mean and variance by Welford's update, so that long texts lose nothing to cancellation. NaN
// losses are counted apart and left out of the mean.
class NllSum {
 public:
  void add(double nll);
  // NaN perplexity when no loss was finite.
  PerplexityResult result(std::int64_t tokens) const;

 private:
  std::int64_t count_ = 0;
  std::int64_t nan_ = 0;
  double mean_ = 0;
  double squares_ = 0;  // sum of squared distances from the mean
};

}  // namespace nibble
