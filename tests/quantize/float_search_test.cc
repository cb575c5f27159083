// The errors by which ranges and splits of floats are compared, and what they choose, against their
// definitions.
#include "quantize/math/float_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "formats/registry.h"
#include "quantize/algorithm.h"
#include "quantize/math/clip.h"
#include "quantize/math/smoothing.h"
#include "support/decoded.h"
#include "support/exact_backend.h"

namespace nibble {
namespace {

std::vector<float> random_values(std::size_t count, unsigned seed, float size = 1) {
  std::mt19937 random(seed);
  std::student_t_distribution<float> heavy(5);
  std::vector<float> values(count);
  for (float& v : values) v = heavy(random) * size;
  return values;
}

// sum over rows of (x w^T - y q^T)^2, x and y [rows, cols], w and q [outputs, cols]
double product_error(const std::vector<float>& x, const std::vector<float>& w,
                     const std::vector<float>& y, const std::vector<float>& q, std::size_t cols) {
  double total = 0;
  for (std::size_t r = 0; r < x.size() / cols; ++r) {
    for (std::size_t o = 0; o < w.size() / cols; ++o) {
      double d = 0;
      for (std::size_t c = 0; c < cols; ++c) {
        d += double{x[r * cols + c]} * double{w[o * cols + c]} -
             double{y[r * cols + c]} * double{q[o * cols + c]};
      }
      total += d * d;
    }
  }
  return total;
}

std::vector<float> difference(const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<float> d(a.size());
  for (std::size_t i = 0; i < d.size(); ++i) d[i] = a[i] - b[i];
  return d;
}

using test::decoded;

constexpr std::size_t kCols = 24;

// pulled_error() leaves out what q has no part in, which is the error at q = w.
TEST(PulledError, IsTheErrorOfTheProductUpToAConstant) {
  ThreadPool pool(2);
  const std::vector<float> x = random_values(300 * kCols, 1), w = random_values(5 * kCols, 2);
  std::vector<float> y = x;
  for (float& v : y) v = std::nearbyint(v);
  const Hessian hessian = rounding_moments(y, x, kCols, pool);
  EXPECT_EQ(hessian.rows, 300);
  const std::vector<float> pull = drift_pull(hessian, w.data(), 5, pool);
  const double constant = product_error(x, w, y, w, kCols);
  for (unsigned seed = 3; seed < 6; ++seed) {
    const std::vector<float> q = random_values(w.size(), seed);
    const double expected = product_error(x, w, y, q, kCols);
    EXPECT_NEAR(pulled_error(hessian, difference(w, q), pull, pool) + constant, expected,
                1e-4 * expected);
  }
  Hessian without = hessian;
  without.drift.clear();
  EXPECT_TRUE(drift_pull(without, w.data(), 5, pool).empty());
}

TEST(ClippedGrids, CompareRangesByTheErrorOnOtherInputs) {
  ThreadPool pool(1);
  const std::vector<float> x = random_values(200 * kCols, 7);
  std::vector<float> y = x;
  for (float& v : y) v = 2 * std::nearbyint(v / 2);
  const Hessian hessian = rounding_moments(y, x, kCols, pool);
  for (const char* name : {"fp4_e2m1_channel", "int3_channel_sym_sf32", "fp4_e3m0_channel"}) {
    const FormatPtr format = parse_weight_format(name);
    for (unsigned seed = 20; seed < 30; ++seed) {
      const std::vector<float> w = random_values(kCols, seed, 0.1f);
      const std::vector<float> pull = drift_pull(hessian, w.data(), 1, pool);
      const ErrorMeasure measure{{}, &hessian, pull};
      const auto error_of = [&](const std::vector<float>& q) {
        return product_error(x, w, y, q, kCols);
      };
      // The grid of the widest weight moved, by factors that leave it on no bound between values.
      double best = error_of(decoded(format->encode(w.data(), 1, kCols)));
      const auto widest = std::ranges::max_element(w, {}, [](float v) { return std::abs(v); });
      for (int k = -8; k <= 8; ++k) {
        const auto f = static_cast<float>(1 + 0.06 * k);
        std::vector<float> moved = w;
        const float limit = std::abs(*widest) * f;
        for (float& v : moved) v = std::clamp(v, -limit, limit);
        moved[static_cast<std::size_t>(widest - w.begin())] = std::copysign(limit, *widest);
        const WeightGrids grids(format, moved.data(), 1, kCols);
        best = std::min(best, error_of(decoded(grids.encode(w.data()))));
      }
      const ClipGrid grid{8, 0.48, false, 0.481, 0};
      const auto found = clipped_grids(format, w.data(), 1, kCols, measure, grid).encode(w.data());
      EXPECT_NEAR(error_of(decoded(found)), best, 1e-4 * best) << name << seed;
      // A list of all is all; a short one never is worse than the full range.
      ClipGrid listed = grid;
      listed.shortlist = 20;
      const auto of_list =
          clipped_grids(format, w.data(), 1, kCols, measure, listed).encode(w.data());
      listed.shortlist = 2;
      const auto of_two =
          clipped_grids(format, w.data(), 1, kCols, measure, listed).encode(w.data());
      EXPECT_LE(error_of(decoded(of_list)), error_of(decoded(of_two)) * (1 + 1e-5));
      EXPECT_LE(error_of(decoded(of_two)),
                error_of(decoded(format->encode(w.data(), 1, kCols))) * (1 + 1e-4));
    }
  }
}

TEST(BestRounding, IsTheLeastErrorOfAllCandidates) {
  ThreadPool pool(3);
  const std::vector<float> x = random_values(60 * kCols, 31), w = random_values(7 * kCols, 32);
  std::vector<float> q = w;
  for (float& v : q) v = std::nearbyint(2 * v) / 2;
  const Hessian weights = rounding_moments(q, w, kCols, pool);
  const auto splits = float_splits(parse_activation_format("fp4_e2m1_tensor_static"));
  const auto found = best_rounding(splits, x, weights, {20, 0.5, 0}, pool);
  ASSERT_NE(found, nullptr);
  EXPECT_TRUE(found->is_complete());
  const auto error_of = [&](const ActivationFormat& format) {
    std::vector<float> y(x.size());
    format.round(x.data(), kCols, 60, kCols, y.data(), kCols);
    return product_error(x, w, y, q, kCols);
  };
  float largest = 0;
  for (const float v : x) largest = std::max(largest, std::abs(v));
  double best = INFINITY;
  for (const ActivationFormatPtr& split : splits) {
    for (int k = 1; k <= 30; ++k) {
      const float range = largest * static_cast<float>(k) / 20;
      best = std::min(best, error_of(*split->with_scales({{range / split->largest(), 0}})));
    }
  }
  EXPECT_NEAR(error_of(*found), best, 1e-4 * best);
  const auto nothing =
      best_rounding(splits, std::vector<float>(4 * kCols, 0.0f), weights, {20, 0.5, 4}, pool);
  EXPECT_TRUE(nothing->is_complete());
}

TEST(LlmFp4, WeightsAreChosenForInputsAsTheyAreRounded) {
  const auto backend = test::exact_backend(2);
  ThreadPool& pool = backend->pool();
  constexpr std::int64_t kRows = 200, kOutputs = 8;
  std::vector<float> x = random_values(kRows * kCols, 41);
  for (std::size_t i = 0; i < x.size(); i += kCols) x[i] *= 8;  // all others are rounded coarsely
  const std::vector<float> w = random_values(kOutputs * kCols, 42);
  Hessian hessian = rounding_moments(x, x, kCols, pool);
  hessian.drift.clear();
  hessian.samples = x;
  const std::vector<float> second_moment = hessian.second_moment();
  const Algorithm* solver = find_algorithm("llm_fp4");
  ASSERT_NE(solver, nullptr);
  Parameters parameters;
  for (const ParameterSpec& spec : solver->parameters) parameters[spec.name] = spec.value;
  const auto solve = [&](ActivationFormatPtr inputs) {
    return solver->solve({parse_weight_format("fp4_e2m1_channel"),
                          w.data(),
                          kOutputs,
                          kCols,
                          second_moment,
                          &hessian,
                          pool,
                          *backend,
                          {},
                          std::move(inputs)},
                         parameters);
  };
  const Solution both = solve(parse_activation_format("fp4_e2m1_tensor_static"));
  const Solution alone = solve(nullptr);
  ASSERT_NE(both.activations, nullptr);
  std::vector<float> y(x.size());
  both.activations->round(x.data(), kCols, kRows, kCols, y.data(), kCols);
  EXPECT_LT(product_error(x, w, y, decoded(both.stored), kCols),
            product_error(x, w, y, decoded(alone.stored), kCols));
}

TEST(FloatSplits, AreAllOfOneSize) {
  std::vector<std::string> names;
  for (const FormatPtr& format : float_splits(parse_weight_format("fp4_e2m1_g32_sf16"))) {
    names.push_back(format->name());
  }
  EXPECT_THAT(names,
              testing::ElementsAre("fp4_e2m1_g32_sf16", "fp4_e3m0_g32_sf16", "fp4_e1m2_g32_sf16"));
  EXPECT_EQ(float_splits(parse_weight_format("int4_g32_asym")).size(), 1u);
  EXPECT_EQ(float_splits(parse_weight_format("fp4_e2m1_g32_se8m0")).size(), 1u);
  names.clear();
  for (const auto& format : float_splits(parse_activation_format("fp4_e1m2_tensor_static"))) {
    names.push_back(format->name());
  }
  EXPECT_THAT(names, testing::ElementsAre("fp4_e1m2_tensor_static", "fp4_e3m0_tensor_static",
                                          "fp4_e2m1_tensor_static"));
}

TEST(PowerOfTwoShifts, RaiseSmallChannelsAndNothingElse) {
  const std::vector<float> largest = {8, 4.1f, 1, 0.001f, 0};
  EXPECT_EQ(power_of_two_shifts(largest, 3), (std::vector<float>{1, 0.5f, 0.125f, 0.125f, 1}));
  EXPECT_EQ(power_of_two_shifts(largest, 1), (std::vector<float>{1, 0.5f, 0.5f, 0.5f, 1}));
}

TEST(EqualizingScales, GiveBothSidesOneRange) {
  const std::vector<float> made = {4, 0.5f, 0, 3}, read = {1, 2, 5, 0};
  const std::vector<float> s = equalizing_scales(made, read);
  EXPECT_EQ(s, (std::vector<float>{2, 0.5f, 1, 1}));
  EXPECT_EQ(made[0] / s[0], read[0] * s[0]);
}

}  // namespace
}  // namespace nibble
