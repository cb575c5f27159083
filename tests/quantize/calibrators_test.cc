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

TEST(Calibrators, UnknownNamesSuggestNearOnes) {
  EXPECT_ERROR(find_calibrator("entropie"), ErrorKind::kUsage, "did you mean entropy");
}

}  // namespace
}  // namespace nibble
