#include "quantize/calibrators/calibrators.h"

#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using testing::ElementsAre;

std::vector<float> normal_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

TEST(Histogram, FirstBatchSetsTheWidth) {
  Histogram h(4);
  h.add(std::vector<float>{0.f, -1.f, 1.5f, 4.f, -4.f});
  EXPECT_DOUBLE_EQ(h.width(), 1);
  EXPECT_THAT(h.counts(), ElementsAre(1, 2, 0, 2));
}

TEST(Histogram, LargerBatchesAppendBinsOfTheSameWidth) {
  Histogram h(4);
  h.add(std::vector<float>{4.f});
  h.add(std::vector<float>{6.5f, 0.5f});
  EXPECT_DOUBLE_EQ(h.width(), 1);
  EXPECT_THAT(h.counts(), ElementsAre(1, 0, 0, 1, 0, 0, 1));
  EXPECT_DOUBLE_EQ(h.largest(), 6.5);
}

TEST(Histogram, ZerosBeforeTheWidthIsKnownAreCounted) {
  Histogram h(2);
  h.add(std::vector<float>{0.f, -0.f});
  EXPECT_EQ(h.total(), 2);
  EXPECT_EQ(calibrate_minmax(h, {}), 0);
  EXPECT_EQ(calibrate_entropy(h, {}), 0);
  EXPECT_EQ(calibrate_sqnr(h, {}), 0);
  h.add(std::vector<float>{2.f});
  EXPECT_THAT(h.counts(), ElementsAre(2, 1));
}

TEST(Histogram, StaysBoundedWhenMagnitudesExplode) {
  Histogram h;
  h.add(std::vector<float>{1e-30f, 1e-30f});
  h.add(std::vector<float>{3e38f});
  EXPECT_LE(h.counts().size(), Histogram::kMostBins);
  EXPECT_EQ(h.total(), 3);
  EXPECT_GE(h.edge(h.counts().size()), 2.99e38);
}

TEST(Histogram, RefusesNanAndInfinityAndKeepsWhatItHas) {
  Histogram h(2);
  h.add(std::vector<float>{1.f});
  EXPECT_ERROR(h.add(std::vector<float>{std::nanf("")}), ErrorKind::kCorrupt, "NaN");
  EXPECT_ERROR(h.add(std::vector<float>{5.f, std::numeric_limits<float>::infinity()}),
               ErrorKind::kCorrupt, "infinity");
  EXPECT_EQ(h.total(), 1);
  EXPECT_EQ(h.largest(), 1);
}

TEST(Histogram, CountsNegativeValuesApart) {
  Histogram h(4);
  h.add(std::vector<float>{-4.f, -0.5f, 0.5f, 2.5f, -0.f});
  EXPECT_THAT(h.counts(), ElementsAre(3, 0, 1, 1));
  EXPECT_THAT(h.negative(), ElementsAre(1, 0, 0, 1));
  EXPECT_EQ(h.lowest(), -4);
  EXPECT_EQ(h.highest(), 2.5);
  h.add(std::vector<float>{8.f, -5.f});
  EXPECT_THAT(h.negative(), ElementsAre(1, 0, 0, 1, 0, 1, 0, 0));
  EXPECT_DOUBLE_EQ(h.moving_lowest(), -4 - 0.01);
  EXPECT_DOUBLE_EQ(h.moving_highest(), 2.5 + 0.01 * 5.5);
}

TEST(Histogram, MergesPairsOfNegativeBinsToo) {
  Histogram h(2, 4);
  h.add(std::vector<float>{2.f, -1.5f});
  h.add(std::vector<float>{-8.f});
  EXPECT_THAT(h.counts(), ElementsAre(2, 0, 0, 1));
  EXPECT_THAT(h.negative(), ElementsAre(1, 0, 0, 1));
}

TEST(Histogram, MovingAverageOfTheLargest) {
  Histogram h;
  h.add(std::vector<float>{2.f});
  h.add(std::vector<float>{4.f, 1.f});
  EXPECT_DOUBLE_EQ(h.moving_average(), 2 + 0.01 * 2);
}

TEST(Calibrators, NothingCountedIsAnError) {
  for (const Calibrator& calibrator : calibrators()) {
    EXPECT_ERROR(calibrator.calibrate(Histogram(), {}), ErrorKind::kUsage, "no values");
  }
}

TEST(Calibrators, OptionsOutsideTheirRangeAreErrors) {
  Histogram h;
  h.add(std::vector<float>{1.f});
  for (const Calibrator& calibrator : calibrators()) {
    EXPECT_ERROR(calibrator.calibrate(h, {9, 99, 3}), ErrorKind::kUsage, "bits");
    EXPECT_ERROR(calibrator.calibrate(h, {8, 0, 3}), ErrorKind::kUsage, "percentile");
    EXPECT_ERROR(calibrator.calibrate(h, {8, 99, -1}), ErrorKind::kUsage, "gamma");
  }
}

TEST(Calibrators, RangesAreWithinWhatWasSeen) {
  Histogram h;
  for (unsigned batch = 0; batch < 4; ++batch) h.add(normal_values(5000, batch));
  for (const Calibrator& calibrator : calibrators()) {
    for (const int bits : {2, 4, 8}) {
      const double range = calibrator.calibrate(h, {bits, 99.99, 3});
      EXPECT_GT(range, 0) << calibrator.name;
      EXPECT_LE(range, 1.011 * h.largest() + h.width()) << calibrator.name;
    }
  }
}

// Two cuts without any loss: TensorRT keeps the last of them, Migacz's description the first.
TEST(Entropy, TiesGoTheirDocumentedWays) {
  std::vector<std::int64_t> counts(256, 0);
  for (std::size_t i = 0; i < 128; ++i) counts[i] = 10;
  const Histogram h(counts, 1);
  EXPECT_EQ(calibrate_entropy(h, {}), 256);
  EXPECT_EQ(calibrate_entropy_migacz(h, {}), 128.5);
}

TEST(Sqnr, HeavierSaturationClipsLess) {
  Histogram h;
  h.add(normal_values(100000, 1));
  const double light = calibrate_sqnr(h, {4, 99.99, 1}), aimet = calibrate_sqnr(h, {4, 99.99, 3});
  EXPECT_LT(light, aimet);
  // With both errors alike it minimises what `mse` minimises, on a coarser grid.
  EXPECT_NEAR(light, calibrate_mse(h, {4, 99.99, 3}), 0.02 * h.largest());
}

// Values shifted off 0, as behind an activation function: SiLU's least value is -0.278.
std::vector<float> one_sided_values() {
  std::vector<float> values = normal_values(50000, 5);
  for (float& v : values) v = v / (1 + std::exp(-v));
  return values;
}

TEST(AsymmetricRanges, AreWithinWhatWasSeenAndHoldZero) {
  Histogram h;
  h.add(one_sided_values());
  for (const Calibrator& calibrator : calibrators()) {
    if (calibrator.calibrate_range == nullptr) continue;
    for (const int bits : {2, 4, 8}) {
      const CalibratedRange range = calibrator.calibrate_range(h, {bits, 99.99, 3});
      EXPECT_LE(range.lo, 0) << calibrator.name;
      EXPECT_GT(range.hi, 0) << calibrator.name;
      // Whole steps may reach half of one beyond.
      const double step = (range.hi - range.lo) / ((1 << bits) - 1);
      EXPECT_GE(range.lo, h.lowest() - 0.51 * step) << calibrator.name << " " << bits;
      EXPECT_LE(range.hi, h.highest() + 0.51 * step) << calibrator.name << " " << bits;
    }
  }
}

TEST(AsymmetricRanges, OneSideOnly) {
  Histogram positive, negative, zeros;
  positive.add(std::vector<float>{0.f, 1.f, 3.f});
  negative.add(std::vector<float>{-1.f, -3.f});
  zeros.add(std::vector<float>{0.f});
  for (const Calibrator& calibrator : calibrators()) {
    if (calibrator.calibrate_range == nullptr) continue;
    EXPECT_EQ(calibrator.calibrate_range(positive, {}).lo, 0) << calibrator.name;
    EXPECT_NEAR(calibrator.calibrate_range(positive, {}).hi, 3, 0.02) << calibrator.name;
    EXPECT_NEAR(calibrator.calibrate_range(negative, {}).lo, -3, 0.02) << calibrator.name;
    EXPECT_EQ(calibrator.calibrate_range(negative, {}).hi, 0) << calibrator.name;
    const CalibratedRange none = calibrator.calibrate_range(zeros, {});
    EXPECT_EQ(none.lo, 0) << calibrator.name;
    EXPECT_EQ(none.hi, 0) << calibrator.name;
    EXPECT_ERROR(calibrator.calibrate_range(Histogram(), {}), ErrorKind::kUsage, "no values");
  }
}

// Of 10,000 values 10 lie far above and 5 far below: 99.85 % leaves out either, 99.96 % nothing.
TEST(AsymmetricRanges, PercentilesCountEachSide) {
  std::vector<float> values(10000, 0.5f);
  for (std::size_t i = 0; i < 10; ++i) values[i] = 4;
  for (std::size_t i = 10; i < 15; ++i) values[i] = -2;
  Histogram h(8);
  h.add(values);
  const CalibratedRange cut = percentile_range(h, {8, 99.85, 3});
  EXPECT_EQ(cut.lo, 0);
  EXPECT_EQ(cut.hi, 0.5);  // the lower edge of its bin
  const CalibratedRange whole = percentile_range(h, {8, 99.96, 3});
  EXPECT_EQ(whole.lo, -2);
  EXPECT_EQ(whole.hi, 3.5);  // the lower edge of the last bin
}

// The error of the values themselves, every pair of ends at hundredths of what was seen.
TEST(AsymmetricRanges, LeastErrorIsThatOfATrial) {
  const std::vector<float> values = one_sided_values();
  Histogram h;
  h.add(values);
  const auto error_of = [&](double lo, double hi) {
    const double step = (hi - lo) / 15, low = std::nearbyint(lo / step);
    double error = 0;
    for (std::size_t i = 0; i < values.size(); i += 10) {
      const double x = double{values[i]};
      const double d = std::clamp(std::nearbyint(x / step), low, low + 15) * step - x;
      error += d * d;
    }
    return error;
  };
  double least = std::numeric_limits<double>::infinity();
  for (int i = 10; i <= 100; i += 3) {
    for (int j = 10; j <= 100; j += 3) {
      least = std::min(least, error_of(h.lowest() * i / 100, h.highest() * j / 100));
    }
  }
  const CalibratedRange mse = mse_range(h, {4, 99.99, 3});
  EXPECT_LT(error_of(mse.lo, mse.hi), 1.03 * least);
  const CalibratedRange sqnr = sqnr_range(h, {4, 99.99, 1});
  EXPECT_LT(error_of(sqnr.lo, sqnr.hi), 1.25 * least);  // a coarser grid
  EXPECT_LT(least, 0.8 * error_of(h.lowest(), h.highest()));
  // Saturation that counts more is allowed less of.
  const CalibratedRange heavy = sqnr_range(h, {4, 99.99, 100});
  EXPECT_GT(heavy.hi - heavy.lo, sqnr.hi - sqnr.lo);
}

TEST(Calibrators, UnknownNamesSuggestNearOnes) {
  EXPECT_ERROR(find_calibrator("entropie"), ErrorKind::kUsage, "did you mean entropy");
}

}  // namespace
}  // namespace nibble
