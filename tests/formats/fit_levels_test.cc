// Fitted tables against Max's for the normal distribution, against an exhaustive search, and as
// formats.
#include "formats/fit_levels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "formats/registry.h"

namespace nibble {
namespace {

std::vector<WeightedValue> normal_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<WeightedValue> values(count);
  for (WeightedValue& v : values) v.value = normal(random);
  return values;
}

double error_of(const std::vector<WeightedValue>& values, const std::vector<float>& levels) {
  double sum = 0, total = 0;
  for (const WeightedValue& v : values) {
    double least = std::numeric_limits<double>::infinity();
    for (const float level : levels) {
      const double d = double{v.value} - double{level};
      least = std::min(least, d * d);
    }
    sum += v.weight * least;
    total += v.weight;
  }
  return sum / total;
}

// Max 1960: levels of the normal distribution as points of equal probability.
TEST(LloydMax, SixteenLevelsOfTheNormalDistribution) {
  std::vector<WeightedValue> values;
  constexpr int kPoints = 40001;
  for (int i = 0; i < kPoints; ++i) {
    const double x = -6 + 12.0 * i / (kPoints - 1);
    values.push_back({static_cast<float>(x), std::exp(-x * x / 2)});
  }
  const std::vector<float> levels = lloyd_max_levels(values, 16);
  const float positive[] = {0.1284f, 0.3881f, 0.6568f, 0.9424f, 1.256f, 1.618f, 2.069f, 2.733f};
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(levels[8 + i], positive[i], 0.005f) << i;
    EXPECT_NEAR(levels[7 - i], -positive[i], 0.005f) << i;
  }
  EXPECT_NEAR(error_of(values, levels), 0.009501, 1e-5);
}

// The best of all ways to cut few values into runs.
TEST(LloydMax, IsNearTheOptimumOfFewValues) {
  for (unsigned seed = 1; seed < 30; ++seed) {
    std::vector<WeightedValue> values = normal_values(12, seed);
    std::ranges::sort(values, {}, &WeightedValue::value);
    for (std::size_t i = 0; i < values.size(); ++i) values[i].weight = 1 + double(i * seed % 3);
    double best = std::numeric_limits<double>::infinity();
    for (std::size_t a = 1; a < 11; ++a) {
      for (std::size_t b = a + 1; b < 12; ++b) {
        std::vector<float> levels;
        for (const auto& [begin, end] :
             {std::pair{std::size_t{0}, a}, {a, b}, {b, values.size()}}) {
          double sum = 0, weight = 0;
          for (std::size_t i = begin; i < end; ++i) {
            sum += values[i].weight * double{values[i].value};
            weight += values[i].weight;
          }
          levels.push_back(static_cast<float>(sum / weight));
        }
        best = std::min(best, error_of(values, levels));
      }
    }
    EXPECT_LT(error_of(values, lloyd_max_levels(values, 3)), 2.5 * best + 1e-12) << seed;
  }
}

TEST(LloydMax, FewDistinctValuesAreTheLevels) {
  EXPECT_EQ(lloyd_max_levels({{2, 1}, {-1, 5}, {2, 3}}, 4), (std::vector<float>{-1, 2, 2, 2}));
  EXPECT_EQ(lloyd_max_levels({{2, 0}, {-1, 0}}, 2), (std::vector<float>{-1, 2}));
  EXPECT_EQ(lloyd_max_levels({}, 2), (std::vector<float>{0, 0}));
}

// Sorted by every bit, few values or many: two that differ in one bit, in turn, are two levels.
TEST(LloydMax, OrdersValuesThatDifferInOneBit) {
  for (const std::size_t copies : {2, 2000}) {
    for (const float value : {2.5f, -2.5f}) {
      for (int bit = 0; bit < 32; ++bit) {
        const auto other =
            std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ std::uint32_t{1} << bit);
        std::vector<WeightedValue> values;
        for (std::size_t i = 0; i < copies; ++i) values.insert(values.end(), {{value}, {other}});
        EXPECT_EQ(lloyd_max_levels(values, 2),
                  (std::vector<float>{std::min(value, other), std::max(value, other)}))
            << copies << " of " << value << ", bit " << bit;
      }
    }
  }
}

TEST(Quantiles, HaveEqualShares) {
  const std::vector<WeightedValue> values = normal_values(40000, 3);
  const std::vector<float> levels = quantile_levels(values, 8);
  for (std::size_t i = 0; i < 8; ++i) {
    const auto below =
        std::ranges::count_if(values, [&](const WeightedValue& v) { return v.value < levels[i]; });
    EXPECT_NEAR(static_cast<double>(below) / 40000, (double(i) + 0.5) / 8, 1e-4);
  }
}

double format_error(const std::string& name, const std::vector<float>& w, std::int64_t cols,
                    std::span<const float> importance = {}) {
  const FormatPtr format = parse_weight_format(name);
  Codec codec;
  codec.importance = importance;
  const auto rows = static_cast<std::int64_t>(w.size()) / cols;
  const QuantTensor stored = format->encode(w.data(), rows, cols, codec);
  std::vector<float> decoded(w.size());
  decode_all(stored, decoded.data());
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double d = double{w[i]} - double{decoded[i]};
    const auto col = i % static_cast<std::size_t>(cols);
    sum += d * d * (importance.empty() ? 1 : double{importance[col]});
  }
  return sum;
}

// A fitted table is never worse than a fixed one of as many levels, and one for each row is better
// still where rows differ.
TEST(FittedFormats, BeatFixedTables) {
  constexpr std::int64_t kCols = 256;
  std::mt19937 random(5);
  std::vector<float> w;
  for (int row = 0; row < 24; ++row) {
    std::student_t_distribution<float> heavy(3);
    std::uniform_real_distribution<float> flat(-1, 1);
    for (int col = 0; col < kCols; ++col) w.push_back(row % 2 == 0 ? heavy(random) : flat(random));
  }
  EXPECT_LT(format_error("lloyd4_g64_sf32", w, kCols), format_error("nf4_g64_sf32", w, kCols));
  EXPECT_LT(format_error("lloyd4_g64_sf32", w, kCols),
            format_error("quantile4_g64_sf32", w, kCols));
  EXPECT_LT(format_error("lloyd3_channel_own", w, kCols), format_error("lloyd3_channel", w, kCols));
  EXPECT_LT(format_error("linear8_g64", w, kCols), format_error("dynamic8_g64", w, kCols));
}

// Errors of columns that matter count for more.
TEST(FittedFormats, WeighColumnsByImportance) {
  constexpr std::int64_t kCols = 128;
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  std::vector<float> w;
  for (std::int64_t i = 0; i < 16 * kCols; ++i) {
    w.push_back(i % kCols < 16 ? 0.1f * normal(random) : 1 + 0.3f * normal(random));
  }
  std::vector<float> importance(kCols, 0.01f);
  std::fill_n(importance.begin(), 16, 10.0f);
  const auto error = [&](std::span<const float> known) {
    const FormatPtr format = parse_weight_format("lloyd3_channel_own_sf32");
    Codec codec;
    codec.importance = known;
    const QuantTensor stored = format->encode(w.data(), 16, kCols, codec);
    std::vector<float> decoded(w.size());
    decode_all(stored, decoded.data());
    double sum = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double d = double{w[i]} - double{decoded[i]};
      sum += d * d * double{importance[i % kCols]};
    }
    return sum;
  };
  EXPECT_LT(error(importance), 0.5 * error({}));
}

}  // namespace
}  // namespace nibble
