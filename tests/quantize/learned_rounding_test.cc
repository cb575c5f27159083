// Learned rounding against its definition and against finite differences.
#include "quantize/math/learned_rounding.h"

#include <gtest/gtest.h>

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

// Where no code and no zero point changes, the stored weights are linear in the ends but for the
// rounding that the gradient takes for the identity: what it leaves out is v and the rounding
// error.
TEST(LearnedRounding, GradientsAreThoseOfTheFormulaWithoutRounding) {
  ThreadPool pool(1);
  const std::vector<float> w = random_values(64, 3);
  LearnedRounding rounding(parse_weight_format("int4_g64_asym_sf32"), w.data(), 1, 64);
  const std::vector<float> by = random_values(64, 4);
  // As real functions of the ends a and b: inside, s (round(w / s) - z + z) follows w / s, so that
  // only the offset of the rounding scales with s; saturated weights follow the ends themselves.
  const auto formula = [&](double a, double b) {
    double lo = 0, hi = 0;
    for (const float v : w) {
      lo = std::min(lo, static_cast<double>(v));
      hi = std::max(hi, static_cast<double>(v));
    }
    const double s1 = (hi - lo) / 15, z1 = std::nearbyint(-lo / s1);
    lo *= a;
    hi *= b;
    const double s = (hi - lo) / 15, z = -lo / s;
    double sum = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double x = static_cast<double>(w[i]);
      const double code = x / s1 + z1;
      const double nearest = std::nearbyint(x / s1) + z1;
      const double kept = nearest - code;  // the rounding error, held fixed
      const bool inside = code > -0.5 && code < 15.5;
      const double value = inside ? x + s * kept : s * (std::clamp(nearest, 0.0, 15.0) - z);
      sum += value * static_cast<double>(by[i]);
    }
    return sum;
  };
  const LearnedRounding::Parameters gradients = rounding.gradients(by, pool);
  constexpr double kStep = 1e-4;
  EXPECT_NEAR(gradients.ends[0], (formula(1 + kStep, 1) - formula(1 - kStep, 1)) / (2 * kStep),
              2e-4);
  EXPECT_NEAR(gradients.ends[1], (formula(1, 1 + kStep) - formula(1, 1 - kStep)) / (2 * kStep),
              2e-4);
}

}  // namespace
}  // namespace nibble
