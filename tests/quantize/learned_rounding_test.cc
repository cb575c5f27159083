// Learned rounding against its definition and against finite differences.
#include "quantize/math/learned_rounding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "formats/registry.h"

namespace nibble {
namespace {

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.1f);
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

std::vector<float> rounded(const LearnedRounding& rounding, std::size_t count, ThreadPool& pool) {
  std::vector<float> values(count);
  rounding.rounded(values.data(), pool);
  return values;
}

TEST(LearnedRounding, BeginsAsRoundToNearestAndStoresWhatItSays) {
  ThreadPool pool(2);
  for (const char* name : {"int4_g32_asym", "int3_g16_sym", "int2_channel_asym_sf32"}) {
    SCOPED_TRACE(name);
    const FormatPtr format = parse_weight_format(name);
    const std::vector<float> w = random_values(8 * 64, 1);
    LearnedRounding rounding(format, w.data(), 8, 64);
    std::vector<float> nearest(w.size());
    decode_all(format->encode(w.data(), 8, 64), nearest.data());
    EXPECT_EQ(rounded(rounding, w.size(), pool), nearest);

    LearnedRounding::Parameters moved = rounding.parameters();
    const std::vector<float> by = random_values(moved.offsets.size() + moved.ends.size(), 2);
    std::copy_n(by.begin(), moved.offsets.size(), moved.offsets.begin());
    std::copy(by.begin() + std::ssize(moved.offsets), by.end(), moved.ends.begin());
    rounding.step(moved, 0.3f);
    const std::vector<float> changed = rounded(rounding, w.size(), pool);
    EXPECT_NE(changed, nearest);
    std::vector<float> stored(w.size());
    decode_all(rounding.encode(pool), stored.data());
    EXPECT_EQ(stored, changed);
  }
}

TEST(LearnedRounding, StepsAgainstTheSignWithinBounds) {
  const std::vector<float> w = {-0.5f, 0.25f, 1.0f, 0.125f};
  LearnedRounding rounding(parse_weight_format("int4_g4_asym_sf32"), w.data(), 1, 4);
  rounding.step({{1, -2, 0, 0.1f}, {1, -1}}, 0.25f);
  EXPECT_EQ(rounding.parameters().offsets, (std::vector<float>{-0.25f, 0.25f, 0, -0.25f}));
  EXPECT_EQ(rounding.parameters().ends, (std::vector<float>{0.75f, 1}));
  rounding.step({{1, -2, 0, 0.1f}, {1, -1}}, 1);
  EXPECT_EQ(rounding.parameters().offsets, (std::vector<float>{-0.5f, 0.5f, 0, -0.5f}));
  EXPECT_EQ(rounding.parameters().ends, (std::vector<float>{LearnedRounding::kLeastEnd, 1}));
}

// Inside the range a weight follows its rounding error times the step, the rest of it does not
// move; beyond it, it is the end of the range itself. The zero point is whole here, so that its
// rounding has no part in it.
TEST(LearnedRounding, GradientsAreThoseOfTheFormulaWithoutRounding) {
  ThreadPool pool(1);
  std::vector<float> w = random_values(64, 3);
  for (float& v : w) v = std::clamp(3 * v, -0.45f, 0.95f);
  w[0] = -0.5f;
  w[1] = 1;
  LearnedRounding rounding(parse_weight_format("int4_g64_asym_sf32"), w.data(), 1, 64);
  rounding.step({std::vector<float>(64), {1, 1}}, 0.5f);  // half the range: some weights saturate
  const std::vector<float> by = random_values(64, 4);
  constexpr double kStep = 0.75 / 15, kZero = 5;
  int outside = 0;
  const auto formula = [&](double lo, double hi) {
    const double step = (hi - lo) / 15;
    double sum = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double code = double{w[i]} / kStep + kZero;
      const double error = std::nearbyint(code) - code;
      const bool inside = code > -0.5 && code < 15.5;
      outside += inside ? 0 : 1;
      sum += double{by[i]} * (inside ? double{w[i]} + step * error : code > 0 ? hi : lo);
    }
    return sum;
  };
  const LearnedRounding::Parameters gradients = rounding.gradients(by, pool);
  constexpr double kMove = 1e-3;
  const double by_low = (formula(-0.25 + kMove, 0.5) - formula(-0.25 - kMove, 0.5)) / (2 * kMove);
  const double by_high = (formula(-0.25, 0.5 + kMove) - formula(-0.25, 0.5 - kMove)) / (2 * kMove);
  EXPECT_GT(outside, 4);
  EXPECT_NEAR(gradients.ends[0], -0.5 * by_low, 1e-5);
  EXPECT_NEAR(gradients.ends[1], by_high, 1e-5);
}

}  // namespace
}  // namespace nibble
