#include "eval/nll_sum.h"

#include <cmath>
#include <limits>

namespace nibble {

void NllSum::add(double nll) {
  if (std::isnan(nll)) {
    ++nan_;
    return;
  }
  ++count_;
  const double distance = nll - mean_;
  mean_ += distance / static_cast<double>(count_);
  squares_ += distance * (nll - mean_);
}

PerplexityResult NllSum::result(std::int64_t tokens) const {
  PerplexityResult result;
  result.tokens = tokens;
  result.predicted = count_;
  result.nan = nan_;
  result.mean_nll = count_ > 0 ? mean_ : std::numeric_limits<double>::quiet_NaN();
  result.perplexity = std::exp(result.mean_nll);
  if (count_ > 1) {
    const auto n = static_cast<double>(count_);
    result.stderr_nll = std::sqrt(squares_ / (n - 1) / n);
  }
  return result;
}

}  // namespace nibble
