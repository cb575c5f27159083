// Calibrators on histograms that come from exact distributions, so that nothing is sampled.
#include <gtest/gtest.h>

#include <cmath>

#include "quantize/calibrators/calibrators.h"
#include "study/distribution.h"

namespace nibble {
namespace {

constexpr double kPrinted = 0.5001e-5;

// Counts of round(1e7 p) in 2048 bins on [0, range], p the mass of |x| in a bin.
Histogram exact_histogram(const Distribution& distribution, double range) {
  const double width = range / 2048;
  std::vector<std::int64_t> counts(2048);
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double lo = width * static_cast<double>(i);
    const double p = 2 * (distribution.above(lo) - distribution.above(lo + width)).mass;
    counts[i] = std::llround(1e7 * p);
  }
  return Histogram(std::move(counts), width);
}

struct Anchor {
  const char* name;
  DistributionPtr distribution;
  double range;
  double entropy, migacz, mse8, mse4, p999, p9999, p99999;
};

// Computed with numpy from the same counts; printed to five decimals.
TEST(Calibrators, AnchorsOfExactHistograms) {
  const Anchor anchors[] = {
      {"normal, 5", normal_distribution(), 5, 4.59473, 4.59839, 3.87573, 2.47192, 3.28857, 3.88184,
       4.35303},
      {"normal, 10", normal_distribution(), 10, 4.73633, 4.74365, 3.89893, 2.47803, 3.28613,
       3.88184, 4.38477},
      {"laplace", laplace_distribution(), 16, 10.85938, 10.99609, 9.63672, 4.81641, 6.89844,
       9.16406, 11.17969},
      {"t 5", student_t_distribution(5, 1e6), 40, 13.78906, 14.99023, 13.23242, 4.58008, 6.85547,
       11.01562, 16.17188},
      {"t 3", student_t_distribution(3, 1e6), 150, 23.95020, 28.08838, 37.24365, 9.41162, 12.81738,
       27.09961, 48.41309},
  };
  for (const Anchor& a : anchors) {
    const Histogram h = exact_histogram(*a.distribution, a.range);
    const auto percentile = [&](double p) { return calibrate_percentile(h, {8, p, 3}); };
    EXPECT_NEAR(calibrate_entropy(h, {}), a.entropy, kPrinted) << a.name;
    EXPECT_NEAR(calibrate_entropy_migacz(h, {}), a.migacz, kPrinted) << a.name;
    EXPECT_NEAR(calibrate_mse(h, {}), a.mse8, kPrinted) << a.name;
    EXPECT_NEAR(calibrate_mse(h, {4, 99.99, 3}), a.mse4, kPrinted) << a.name;
    EXPECT_NEAR(percentile(99.9), a.p999, kPrinted) << a.name;
    EXPECT_NEAR(percentile(99.99), a.p9999, kPrinted) << a.name;
    EXPECT_NEAR(percentile(99.999), a.p99999, kPrinted) << a.name;
  }
}

// Of tests/golden/study/sqnr_anchors.py, printed to five decimals.
TEST(Calibrators, SqnrAnchorsOfExactHistograms) {
  const struct {
    const char* name;
    DistributionPtr distribution;
    double range, eight_bits, four_bits;
  } anchors[] = {
      {"normal, 5", normal_distribution(), 5, 4.1, 2.8},
      {"normal, 10", normal_distribution(), 10, 4.1, 2.8},
      {"laplace", laplace_distribution(), 16, 10.4, 5.76},
      {"t 5", student_t_distribution(5, 1e6), 40, 14.8, 6},
      {"t 3", student_t_distribution(3, 1e6), 150, 45, 12},
  };
  for (const auto& a : anchors) {
    const Histogram h = exact_histogram(*a.distribution, a.range);
    EXPECT_NEAR(calibrate_sqnr(h, {8, 99.99, 3}), a.eight_bits, kPrinted) << a.name;
    EXPECT_NEAR(calibrate_sqnr(h, {4, 99.99, 3}), a.four_bits, kPrinted) << a.name;
  }
}

}  // namespace
}  // namespace nibble
