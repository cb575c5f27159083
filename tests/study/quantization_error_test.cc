#include "study/quantization_error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>

#include "study/grid.h"

namespace nibble {
namespace {

DistributionPtr named(const std::string& name) {
  if (name == "uniform") return uniform_distribution(1);
  if (name == "normal") return normal_distribution();
  if (name == "laplace") return laplace_distribution();
  if (name == "1% outliers") {
    return mixture_distribution(normal_distribution(), uniform_distribution(20), 0.01);
  }
  if (name == "0.1% outliers") {
    return mixture_distribution(normal_distribution(), uniform_distribution(60), 0.001);
  }
  return student_t_distribution(std::stod(name));
}

double best_bits(const Distribution& distribution, const Grid& grid) {
  return bits_of_accuracy(distribution, best_clip(distribution, grid.levels).mean_squared_error);
}

double lloyd_max_bits(const Distribution& distribution, int levels) {
  return bits_of_accuracy(
      distribution, mean_squared_error(distribution, lloyd_max_levels(distribution, levels), 1));
}

struct Row {
  const char* distribution;
  std::vector<double> bits;  // of the grids, in order; then of Lloyd-Max
};

void expect_table(const std::vector<Grid>& grids, const std::vector<Row>& table) {
  for (const Row& row : table) {
    const DistributionPtr distribution = named(row.distribution);
    for (std::size_t g = 0; g < grids.size(); ++g) {
      EXPECT_NEAR(best_bits(*distribution, grids[g]), row.bits[g], 0.01)
          << row.distribution << ' ' << grids[g].name;
    }
    EXPECT_NEAR(lloyd_max_bits(*distribution, 1 << grids[0].bits), row.bits.back(), 0.01)
        << row.distribution;
  }
}

// Values of double-precision integration with numpy, clips searched on a grid of 4000.
TEST(BitsOfAccuracy, EightBitTable) {
  expect_table(
      {integer_grid(8), float_grid(2, 5), float_grid(3, 4), float_grid(4, 3), float_grid(5, 2)},
      {{"uniform", {7.994, 7.390, 6.393, 5.383, 4.365, 8.000}},
       {"normal", {6.734, 7.087, 6.239, 5.241, 4.249, 7.284}},
       {"laplace", {5.843, 6.552, 6.235, 5.238, 4.245, 6.921}},
       {"10", {5.964, 6.621, 6.234, 5.238, 4.245, 7.025}},
       {"8", {5.712, 6.383, 6.231, 5.238, 4.245, 6.945}},
       {"7", {5.518, 6.182, 6.226, 5.238, 4.245, 6.883}},
       {"6", {5.242, 5.881, 6.212, 5.238, 4.245, 6.794}},
       {"5", {4.828, 5.419, 6.167, 5.238, 4.245, 6.670}},
       {"4", {4.200, 4.744, 6.091, 5.238, 4.245, 6.503}},
       {"3", {3.481, 4.164, 6.121, 5.244, 4.251, 6.323}},
       {"2", {3.750, 4.707, 6.287, 5.332, 4.333, 6.402}},
       {"1% outliers", {5.098, 6.017, 6.322, 5.319, 4.313, 6.848}},
       {"0.1% outliers", {3.540, 4.475, 6.269, 5.312, 4.307, 6.703}}});
}

TEST(BitsOfAccuracy, ACodeForNanCostsTheUniformDistributionMost) {
  EXPECT_NEAR(best_bits(*named("uniform"), float_grid(4, 3, FloatKind::kFn)), 5.329, 0.01);
  EXPECT_NEAR(best_bits(*named("normal"), float_grid(4, 3, FloatKind::kFn)), 5.241, 0.005);
}

TEST(BitsOfAccuracy, SixBitTable) {
  expect_table({integer_grid(6), float_grid(2, 3), float_grid(3, 2), float_grid(4, 1)},
               {{"uniform", {5.977, 5.373, 4.365, 3.346, 6.000}},
                {"normal", {4.935, 5.118, 4.249, 3.277, 5.300}},
                {"laplace", {4.195, 4.741, 4.244, 3.272, 4.940}},
                {"8", {4.230, 4.738, 4.243, 3.272, 4.973}},
                {"5", {3.615, 4.138, 4.221, 3.272, 4.694}},
                {"4", {3.143, 3.616, 4.165, 3.272, 4.504}},
                {"3", {2.424, 2.871, 4.111, 3.276, 4.312}}});
}

TEST(BitsOfAccuracy, FourBitTable) {
  expect_table({integer_grid(4), float_grid(1, 2), float_grid(2, 1), float_grid(3, 0)},
               {{"uniform", {3.907, 3.907, 3.332, 2.653, 4.000}},
                {"normal", {3.139, 3.139, 3.150, 2.364, 3.359}},
                {"laplace", {2.595, 2.595, 2.879, 2.353, 3.012}},
                {"8", {2.725, 2.725, 2.950, 2.353, 3.072}},
                {"5", {2.365, 2.365, 2.663, 2.340, 2.827}},
                {"4", {2.076, 2.076, 2.378, 2.310, 2.629}},
                {"3", {1.566, 1.566, 1.832, 2.198, 2.344}}});
}

TEST(BitsOfAccuracy, LargestSampleAsRangeCostsIntegersMost) {
  const DistributionPtr normal = normal_distribution(10);
  const auto bits = [&](const Grid& grid) {
    return bits_of_accuracy(*normal, min_max_clip(*normal, grid.levels).mean_squared_error);
  };
  EXPECT_NEAR(bits(integer_grid(8)), 5.459, 0.01);
  EXPECT_NEAR(bits(float_grid(2, 5)), 6.424, 0.01);
  EXPECT_NEAR(bits(float_grid(3, 4)), 6.239, 0.01);
}

TEST(BestClip, OfKnownFormats) {
  const DistributionPtr normal = normal_distribution();
  EXPECT_NEAR(best_clip(*normal, integer_grid(8).levels).clip, 3.92, 0.01);
  EXPECT_NEAR(best_clip(*normal, float_grid(2, 5).levels).clip, 4.35, 0.01);
  EXPECT_NEAR(best_clip(*normal, integer_grid(6).levels).clip, 3.27, 0.01);
  EXPECT_NEAR(best_clip(*normal, integer_grid(4).levels).clip, 2.474, 0.001);
  EXPECT_NEAR(best_clip(*normal, float_grid(3, 4).levels).clip, 5.11, 0.01);
  EXPECT_NEAR(best_clip(*normal, float_grid(2, 3).levels).clip, 3.75, 0.01);
  EXPECT_NEAR(best_clip(*normal, float_grid(3, 2).levels).clip, 4.54, 0.01);
  EXPECT_NEAR(best_clip(*normal, float_grid(2, 1).levels).clip, 2.92, 0.01);
  EXPECT_NEAR(best_clip(*normal, float_grid(3, 0).levels).clip, 4.19, 0.01);
  const DistributionPtr t8 = student_t_distribution(8);
  EXPECT_NEAR(best_clip(*t8, integer_grid(8).levels).clip, 8.31, 0.01);
  EXPECT_NEAR(best_clip(*t8, float_grid(2, 5).levels).clip, 10.15, 0.01);
  EXPECT_NEAR(best_clip(*t8, float_grid(3, 4).levels).clip, 21.4, 0.05);
}

// The least error over all pairs of ends, by trying them on a grid of 300 x 300.
TEST(BestClip, WithAZeroPointIsThatOfAllPairsOfEnds) {
  std::mt19937 random(3);
  std::gamma_distribution<float> gamma(2, 1);
  std::vector<float> values(500);
  for (float& v : values) v = gamma(random) - 0.4f;
  const DistributionPtr distribution = empirical_distribution(values);
  double least = 1e30;
  for (int i = 0; i <= 300; ++i) {
    for (int k = 1; k <= 300; ++k) {
      const double low = -0.5 * i / 300, step = (10.0 * k / 300 - low) / 15;
      const double zero = std::nearbyint(-low / step);
      if (zero > 15) continue;
      double error = 0;
      for (const float v : values) {
        const double x = static_cast<double>(v) / step + zero;
        const double d = step * (x - std::clamp(std::nearbyint(x), 0.0, 15.0));
        error += d * d / static_cast<double>(values.size());
      }
      least = std::min(least, error);
    }
  }
  EXPECT_NEAR(best_zero_point_clip(*distribution, 4).mean_squared_error, least, 0.01 * least);
  EXPECT_LT(least, 0.5 * best_clip(*distribution, integer_grid(4).levels).mean_squared_error);

  double of_all = 1e30;  // of 256 zero points, of which the search tries some
  for (int zero = 0; zero < 256; ++zero) {
    const Clip clip = best_clip(*distribution, integer_grid_around(8, zero).levels);
    of_all = std::min(of_all, clip.mean_squared_error);
  }
  EXPECT_NEAR(best_zero_point_clip(*distribution, 8).mean_squared_error, of_all, 0.01 * of_all);
}

// What lies evenly about 0 needs no zero point but the middle; what lies on one side of it uses all
// codes there: 255 steps of a uniform distribution.
TEST(BestClip, ZeroPointsOfKnownDistributions) {
  const DistributionPtr normal = normal_distribution();
  EXPECT_NEAR(best_zero_point_clip(*normal, 4).mean_squared_error,
              best_clip(*normal, integer_grid(4, true).levels).mean_squared_error, 1e-6);
  std::vector<float> values;
  for (int i = 0; i < 20000; ++i) values.push_back(static_cast<float>(i) / 19999);
  for (const float sign : {1.0f, -1.0f}) {
    for (float& v : values) v = sign * std::abs(v);
    const DistributionPtr one_sided = empirical_distribution(values);
    const auto bits = [&](const Clip& clip) {
      return bits_of_accuracy(*one_sided, clip.mean_squared_error);
    };
    EXPECT_NEAR(bits(min_max_zero_point_clip(*one_sided, 8)), std::log2(255), 0.002);
    EXPECT_NEAR(bits(best_zero_point_clip(*one_sided, 8)), std::log2(255), 0.005);
    EXPECT_NEAR(min_max_zero_point_clip(*one_sided, 8).clip, 1, 1e-12);
  }
}

TEST(LloydMax, SixteenLevelsOfTheNormalDistribution) {
  const DistributionPtr normal = normal_distribution();
  const auto levels = lloyd_max_levels(*normal, 16);
  EXPECT_NEAR(mean_squared_error(*normal, levels, 1), 0.009501, 1e-6);  // Max 1960, table I
  for (std::size_t i = 0; i < 8; ++i) EXPECT_NEAR(levels[i], -levels[15 - i], 1e-3);
}

// The claims of "FP8 versus INT8 for efficient deep learning inference" (2303.17951).
TEST(BitsOfAccuracy, OrderOfFormats) {
  const Grid int8 = integer_grid(8), e2 = float_grid(2, 5), e3 = float_grid(3, 4),
             e4 = float_grid(4, 3), e5 = float_grid(5, 2);
  const auto expect_falling = [](const std::string& name, std::initializer_list<Grid> order) {
    const DistributionPtr distribution = named(name);
    double previous = lloyd_max_bits(*distribution, 256);
    for (const Grid& grid : order) {
      const double bits = best_bits(*distribution, grid);
      EXPECT_LT(bits, previous) << name << ' ' << grid.name;
      previous = bits;
    }
  };
  expect_falling("uniform", {int8, e2, e3, e4, e5});
  expect_falling("normal", {e2, int8, e3, e4, e5});
  expect_falling("0.1% outliers", {e3, e4, e2, e5, int8});
  expect_falling("3", {e3, e4, e5, e2, int8});
  // E2 and E3 change places between 7 and 7.5 degrees of freedom.
  EXPECT_LT(best_bits(*named("7"), e2), best_bits(*named("7"), e3));
  EXPECT_GT(best_bits(*named("7.5"), e2), best_bits(*named("7.5"), e3));
}

TEST(MeanSquaredError, OfValuesIsTheSumOverThem) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.3f, 1.2f);
  std::vector<float> values(1000);
  for (float& v : values) v = normal(random);
  const Grid grid = integer_grid(4, true);
  const double scale = 2.1;
  double expected = 0;
  for (const float v : values) {
    double least = 1e30;
    for (const double level : grid.levels) {
      least = std::min(least, std::abs(static_cast<double>(v) - scale * level));
    }
    expected += least * least / static_cast<double>(values.size());
  }
  const DistributionPtr empirical = empirical_distribution(values);
  EXPECT_NEAR(mean_squared_error(*empirical, grid.levels, scale), expected, 1e-12);
}

}  // namespace
}  // namespace nibble
