#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "formats/registry.h"
#include "quantize/column_totals.h"
#include "quantize/math/channel_statistics.h"
#include "quantize/math/clip.h"
#include "quantize/math/smoothing.h"
#include "support/decoded.h"
#include "support/exact_backend.h"
#include "support/test_data.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

std::vector<float> random_values(std::size_t count, unsigned seed, float scale = 1) {
  std::mt19937 random(seed);
  std::student_t_distribution<float> heavy(3);
  std::vector<float> values(count);
  for (float& v : values) v = heavy(random) * scale;
  return values;
}

TEST(SmoothingScales, FollowTheFormulaUpToACommonFactor) {
  const std::vector<float> x = {2.0f, 0.5f, 8.0f};
  const std::vector<float> w = {0.1f, 0.4f, 0.05f};
  for (const double alpha : {0.0, 0.3, 0.5, 1.0}) {
    const std::vector<float> s = smoothing_scales(x, w, alpha);
    for (std::size_t j = 1; j < x.size(); ++j) {
      const auto value = [&](std::size_t i) {
        return std::pow(double{x[i]}, alpha) / std::pow(double{w[i]}, 1 - alpha);
      };
      const double expected = value(j) / value(0);
      EXPECT_NEAR(s[j] / s[0], expected, expected * 8 * test::unit_roundoff(DType::kF32));
    }
    const auto [least, largest] = std::ranges::minmax(s);
    EXPECT_NEAR(least * largest, 1, 8 * test::unit_roundoff(DType::kF32));
  }
}

TEST(SmoothingScales, DeadChannelsStayFinite) {
  const std::vector<float> x = {0, 1, 0};
  const std::vector<float> w = {0, 0, 1};
  for (const double alpha : {0.0, 0.5, 1.0}) {
    for (const float s : smoothing_scales(x, w, alpha)) {
      EXPECT_GT(s, 0);
      EXPECT_TRUE(std::isfinite(s));
    }
  }
}

// Outliers that a diagonal scaling put into the activations are undone for every strength.
TEST(SmoothingScales, UndoDiagonalOutliers) {
  std::vector<float> x = {1, 2, 3}, w = {0.3f, 0.2f, 0.1f};
  std::vector<float> x_out = x, w_out = w;
  x_out[1] *= 64;
  w_out[1] /= 64;
  for (const double alpha : {0.0, 0.35, 1.0}) {
    const std::vector<float> plain = smoothing_scales(x, w, alpha);
    const std::vector<float> scaled = smoothing_scales(x_out, w_out, alpha);
    const double expected = 64.0 * plain[1] / plain[0];
    EXPECT_NEAR(scaled[1] / scaled[0], expected, expected * 1e-6);
  }
}

TEST(TieByMax, GivesChannelsOfOneRowTheirMaximum) {
  std::vector<float> values = {1, 5, 2, 3};
  const std::vector<std::int64_t> rows = {7, 8, 7, 8};
  tie_by_max(values, rows);
  EXPECT_THAT(values, testing::ElementsAre(2, 5, 2, 5));
}

TEST(ColumnMaxAbs, KeepsWhatItWasGiven) {
  const std::vector<float> w = {1, -4, 2, 3, 0, -1};
  std::vector<float> max_abs = {2, 0, 9};
  ThreadPool pool(2);
  column_max_abs(w.data(), 2, 3, max_abs, pool);
  EXPECT_THAT(max_abs, testing::ElementsAre(3, 4, 9));
}

TEST(SnapToStoredNorm, LeavesNothingToRound) {
  const std::vector<float> weight = {0.9f, -1.3f, 0.02f, 2.5f};
  const std::vector<float> wanted = {1.7f, 0.31f, 5.0f, 0.77f};
  for (const DType type : {DType::kBF16, DType::kF16, DType::kF32}) {
    for (const float offset : {0.0f, 1.0f}) {
      std::vector<float> stored = weight;  // the weight as a checkpoint of this type holds it
      to_float(from_float(weight.data(), type, {4}), stored.data());
      const std::vector<float> s = snap_to_stored_norm(wanted, stored, offset, type);
      for (std::size_t j = 0; j < 4; ++j) {
        const double u = test::unit_roundoff(type);
        EXPECT_NEAR(s[j], wanted[j], wanted[j] * 4 * u * (offset != 0 ? 16 : 1));
        // The folded norm, stored and multiplied back, is the old gain to float32 rounding.
        const float folded = (offset + stored[j]) / s[j] - offset;
        float kept = 0;
        to_float(from_float(&folded, type, {1}), &kept);
        const double gain = double{offset} + double{stored[j]};
        EXPECT_NEAR((double{offset} + double{kept}) * double{s[j]}, gain, std::abs(gain) * 1e-6);
      }
    }
  }
}

TEST(SnapToStoredNorm, DeadChannelsKeepTheirScale) {
  const std::vector<float> weight = {0.0f};
  EXPECT_EQ(snap_to_stored_norm(std::vector<float>{3.0f}, weight, 0, DType::kBF16)[0], 3.0f);
}

double brute_force_error(const std::vector<float>& w, const std::vector<float>& q,
                         const std::vector<float>& weight) {
  double error = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double d = double{w[i]} - double{q[i]};
    error += (weight.empty() ? 1.0 : double{weight[i]}) * d * d;
  }
  return error;
}

// One group of integers under a range.
std::vector<float> rounded(const WeightDescriptor& d, const std::vector<float>& w, float lo,
                           float hi) {
  const AffineParams p = affine_params(d, lo, hi);
  std::vector<float> q;
  for (const float v : w) {
    q.push_back(p.scale * static_cast<float>(affine_code(d, p, v) - p.zero));
  }
  return q;
}

using test::decoded;

std::vector<float> clipped(const FormatPtr& format, const std::vector<float>& w, std::int64_t rows,
                           const ErrorMeasure& measure, const ClipGrid& grid) {
  const auto cols = static_cast<std::int64_t>(w.size()) / rows;
  return decoded(clipped_grids(format, w.data(), rows, cols, measure, grid).encode(w.data()));
}

TEST(GroupError, AgreesWithTheDefinition) {
  for (const std::size_t count : {1u, 7u, 8u, 96u, 257u}) {
    const std::vector<float> w = random_values(count, 3);
    const std::vector<float> q = random_values(count, 5);
    std::vector<float> weight = random_values(count, 4);
    for (float& v : weight) v *= v;
    for (const auto& used : {weight, std::vector<float>{}}) {
      const double expected = brute_force_error(w, q, used);
      EXPECT_NEAR(
          group_error({used, nullptr}, 0, w.data(), q.data(), static_cast<std::int64_t>(count)),
          expected, expected * 1e-5);
    }
  }
}

TEST(ClippedGrids, FindTheBestRangeOfTheGrid) {
  for (const char* name : {"int4_g16_asym", "int3_g16_sym", "int2_g16_asym_sbf16"}) {
    const FormatPtr format = parse_weight_format(name);
    const WeightDescriptor& d = format->descriptor();
    for (unsigned seed = 0; seed < 50; ++seed) {
      const std::vector<float> w = random_values(16, seed);
      std::vector<float> weight = random_values(16, seed + 1000);
      for (float& v : weight) v *= v;
      const auto [lo, hi] = std::ranges::minmax(w);
      double best = brute_force_error(w, rounded(d, w, lo, hi), weight);
      for (int k = 1; k <= 10; ++k) {
        const float f = static_cast<float>(1 - 0.5 * k / 10);
        best = std::min(
            best, brute_force_error(
                      w, rounded(d, w, std::min(lo, 0.0f) * f, std::max(hi, 0.0f) * f), weight));
      }
      const auto found = clipped(format, w, 1, {weight, nullptr}, {10, 0.5, false});
      EXPECT_LE(brute_force_error(w, found, weight), best * (1 + 1e-5)) << name;
      const auto finer = clipped(format, w, 1, {weight, nullptr}, {10, 0.5, true});
      EXPECT_LE(brute_force_error(w, finer, weight),
                brute_force_error(w, found, weight) * (1 + 1e-5));
    }
  }
}

// Tables have no ranges of their own to search; the weights themselves are clipped.
TEST(ClippedGrids, AreNeverWorseThanTheFullRangeInAnyFormat) {
  for (const char* name : {"nf4", "nf4_dq", "mxfp4", "nvfp4", "fp8", "fp8_e5m2_tensor", "w4a16_g64",
                           "int3_tensor_asym"}) {
    SCOPED_TRACE(name);
    const FormatPtr format = parse_model_format(std::string(name)).weights;
    const std::vector<float> w = random_values(8 * 256, 11);
    std::vector<float> weight = random_values(256, 12);
    for (float& v : weight) v *= v;
    std::vector<float> all;
    for (int row = 0; row < 8; ++row) all.insert(all.end(), weight.begin(), weight.end());
    const double full = brute_force_error(w, decoded(format->encode(w.data(), 8, 256)), all);
    const auto found = clipped(format, w, 8, {weight, nullptr}, {10, 0.5, false});
    EXPECT_LE(brute_force_error(w, found, all), full * (1 + 1e-5));
  }
}

TEST(ClippedGrids, ClipAnOutlierThatDoesNotMatter) {
  const FormatPtr format = parse_weight_format("int4_g64_asym_sf32");
  std::vector<float> w = random_values(64, 9, 0.01f);
  w[5] = 1;
  std::vector<float> weight(64, 1.0f);
  weight[5] = 0;
  EXPECT_LT(clipped(format, w, 1, {weight, nullptr}, {20, 0.9, false})[5], 0.5f);
  weight[5] = 1e6f;
  EXPECT_GT(clipped(format, w, 1, {weight, nullptr}, {20, 0.9, false})[5], 0.9f);
}

TEST(ClippedGrids, LeaveZerosAlone) {
  const std::vector<float> w(16, 0.0f);
  EXPECT_EQ(clipped(parse_weight_format("int4_g16_asym"), w, 1, {}, {}), w);
}

TEST(ChannelStatistics, GathersOverCalls) {
  const std::vector<float> x = {1, -2, 3, 4, 0, -6};  // [2, 3]
  const auto backend = test::exact_backend(2);
  ColumnTotals totals(*backend, 3);
  totals.add(x.data(), 2);
  totals.add(x.data(), 1);
  ChannelStatistics s = totals.statistics();
  EXPECT_TRUE(s.is_finite());
  EXPECT_EQ(s.rows, 3);
  EXPECT_THAT(s.max_abs, testing::ElementsAre(4, 2, 6));
  EXPECT_THAT(s.sum_squares, testing::ElementsAre(18, 8, 54));
  EXPECT_THAT(s.second_moment(), testing::ElementsAre(6, 8.0f / 3, 18));
  divide_channels(s, std::vector<float>{2, 1, 3});
  EXPECT_THAT(s.max_abs, testing::ElementsAre(2, 2, 2));
  EXPECT_THAT(s.second_moment(), testing::ElementsAre(1.5f, 8.0f / 3, 2));
}

TEST(ChannelStatistics, NoticesNanAndInfinity) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    const std::vector<float> x = {1, bad};
    const auto backend = test::exact_backend(1);
    ColumnTotals totals(*backend, 2);
    totals.add(x.data(), 1);
    EXPECT_FALSE(totals.statistics().is_finite());
  }
}

TEST(ChannelStatistics, UnseenChannelsHaveNoMoments) {
  EXPECT_TRUE(ChannelStatistics{}.second_moment().empty());
}

}  // namespace
}  // namespace nibble
