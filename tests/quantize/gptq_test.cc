// Error feedback against its definition: after every rounding the columns to come take the values
// that are best given what is fixed.
#include "quantize/math/gptq.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "formats/registry.h"
#include "formats/trellis.h"
#include "quantize/apart_backend.h"
#include "quantize/hessian_sums.h"
#include "quantize/math/compensation.h"
#include "quantize/math/refine.h"
#include "quantize/math/row_chunks.h"
#include "quantize/math/trellis.h"
#include "support/exact_backend.h"
#include "support/test_data.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

using Matrix = std::vector<std::vector<double>>;

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

// Rows of correlated activations [rows, n].
std::vector<float> activations(std::int64_t rows, std::int64_t n, unsigned seed) {
  std::vector<float> x = random_values(static_cast<std::size_t>(rows * n), seed);
  for (std::int64_t i = 0; i < rows * n; ++i) {
    if (i % n > 0) x[static_cast<std::size_t>(i)] += 0.7f * x[static_cast<std::size_t>(i - 1)];
  }
  return x;
}

Hessian hessian_of(const std::vector<float>& x, std::int64_t n, const float* full = nullptr) {
  const auto backend = test::exact_backend(2);
  HessianSums sums(*backend, n);
  sums.add(x.data(), full, static_cast<std::int64_t>(x.size()) / n);
  return sums.hessian();
}

// x with a x = b for a symmetric positive definite matrix: Gaussian elimination.
std::vector<double> solve(Matrix a, std::vector<double> b) {
  const std::size_t n = b.size();
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = k + 1; i < n; ++i) {
      const double f = a[i][k] / a[k][k];
      for (std::size_t j = k; j < n; ++j) a[i][j] -= f * a[k][j];
      b[i] -= f * b[k];
    }
  }
  for (std::size_t k = n; k-- > 0;) {
    for (std::size_t j = k + 1; j < n; ++j) b[k] -= a[k][j] * b[j];
    b[k] /= a[k][k];
  }
  return b;
}

TEST(Accumulate, AgreesWithTheDefinitionOfItsSums) {
  constexpr std::int64_t kRows = 70, kCols = 300;
  const std::vector<float> x = activations(kRows, kCols, 3);
  const std::vector<float> full = activations(kRows, kCols, 4);
  const Hessian h = hessian_of(x, kCols, full.data());
  EXPECT_EQ(h.rows, kRows);
  for (std::int64_t i = 0; i < kCols; i += 7) {
    double magnitude = 0;
    for (std::int64_t t = 0; t < kRows; ++t) magnitude += std::abs(double{x[t * kCols + i]});
    EXPECT_NEAR(h.sum_abs[static_cast<std::size_t>(i)], magnitude, 1e-9 * magnitude);
    for (std::int64_t j = 0; j < kCols; ++j) {
      double moment = 0, drift = 0, size = 0;
      for (std::int64_t t = 0; t < kRows; ++t) {
        const double a = x[t * kCols + i], b = x[t * kCols + j], f = full[t * kCols + i];
        moment += a * b;
        drift += (f - a) * b;
        size += (std::abs(a) + std::abs(f)) * std::abs(b);
      }
      const double bound = 2 * test::dot_error_bound(kRows, size);
      EXPECT_NEAR(h.moments[static_cast<std::size_t>(i * kCols + j)], moment, bound);
      EXPECT_NEAR(h.drift[static_cast<std::size_t>(i * kCols + j)], drift, bound);
    }
  }
}

TEST(InverseFactor, SquaresToTheInverse) {
  constexpr std::int64_t kN = 40;
  const auto backend = test::exact_backend(2);
  const Hessian h = hessian_of(activations(200, kN, 5), kN);
  const auto order = column_order(ColumnOrder::kActivation, h, 8);
  const auto factor = inverse_factor(h, order, 0.01, *backend);
  ASSERT_TRUE(factor.has_value());
  EXPECT_EQ(factor->damping, 0.01);
  double mean = 0;
  for (std::int64_t j = 0; j < kN; ++j) mean += h.moments[j * kN + j] / kN;
  // (U^T U) (M + damping I) = I, in the order.
  for (std::int64_t i = 0; i < kN; ++i) {
    for (std::int64_t j = 0; j < i; ++j) EXPECT_EQ(factor->upper.data<float>()[i * kN + j], 0);
    std::vector<double> row(kN, 0.0);
    for (std::int64_t k = 0; k <= i; ++k) {
      for (std::int64_t j = k; j < kN; ++j) {
        row[j] += double{factor->upper.data<float>()[k * kN + i]} *
                  double{factor->upper.data<float>()[k * kN + j]};
      }
    }
    for (std::int64_t j = 0; j < kN; ++j) {
      double sum = 0.01 * mean * row[j];
      for (std::int64_t k = 0; k < kN; ++k) sum += row[k] * h.moments[order[k] * kN + order[j]];
      EXPECT_NEAR(sum, i == j ? 1 : 0, 1e-4);
    }
  }
}

TEST(InverseFactor, RaisesTheDampingUntilItHolds) {
  const auto backend = test::exact_backend(1);
  Hessian h = hessian_of(activations(3, 16, 6), 16);  // of rank 3
  const auto order = column_order(ColumnOrder::kStored, h, 16);
  const auto found = inverse_factor(h, order, 0, *backend);
  ASSERT_TRUE(found.has_value());
  EXPECT_GT(found->damping, 0);
  h.moments[5 * 16 + 5] = -1e6;
  EXPECT_FALSE(inverse_factor(h, order, 0.01, *backend).has_value());
  h.moments[5 * 16 + 5] = NAN;
  EXPECT_FALSE(inverse_factor(h, order, 0.01, *backend).has_value());
}

TEST(InverseFactor, TakesDeadChannelsAsUncorrelated) {
  const auto backend = test::exact_backend(1);
  std::vector<float> x = activations(50, 8, 7);
  for (std::size_t i = 3; i < x.size(); i += 8) x[i] = 0;
  const Hessian h = hessian_of(x, 8);
  const auto factor = inverse_factor(h, column_order(ColumnOrder::kStored, h, 8), 0, *backend);
  ASSERT_TRUE(factor.has_value());
  EXPECT_EQ(factor->damping, 0);
  for (std::int64_t j = 4; j < 8; ++j) EXPECT_EQ(factor->upper.data<float>()[3 * 8 + j], 0);
}

TEST(ColumnOrder, SortsColumnsAndKeepsGroupsWhereAsked) {
  Hessian h;
  h.channels = 6;
  h.moments.assign(36, 0.0);
  const std::vector<double> diagonal = {1, 5, 2, 9, 5, 3};
  for (std::size_t j = 0; j < 6; ++j) h.moments[j * 7] = diagonal[j];
  EXPECT_THAT(column_order(ColumnOrder::kStored, h, 2), testing::ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(column_order(ColumnOrder::kActivation, h, 2), testing::ElementsAre(3, 1, 4, 5, 2, 0));
  EXPECT_THAT(column_order(ColumnOrder::kGroups, h, 2), testing::ElementsAre(3, 2, 1, 0, 4, 5));
}

// Rounds by the definition: each column to its grid, then the rest to what is best given all that
// is fixed, from the original weights.
std::vector<float> round_by_definition(const Hessian& h, double damping,
                                       const std::vector<std::int64_t>& order,
                                       const WeightGrids& grids, const std::vector<float>& w) {
  const auto n = static_cast<std::size_t>(h.channels);
  double mean = 0;
  for (std::size_t j = 0; j < n; ++j) mean += h.moments[j * n + j] / static_cast<double>(n);
  const auto moment = [&](std::size_t i, std::size_t j) {
    return h.moments[i * n + j] + (i == j ? damping * mean : 0);
  };
  std::vector<float> result = w;
  for (std::int64_t row = 0; row < grids.rows(); ++row) {
    const float* original = w.data() + row * h.channels;
    float* out = result.data() + row * h.channels;
    for (std::size_t fixed = 0; fixed < n; ++fixed) {
      double value = original[order[fixed]];
      if (fixed > 0) {
        // Of the rest R given the fixed F: w_R + M_RR^-1 M_RF (w_F - q_F); its first value.
        Matrix rest(n - fixed, std::vector<double>(n - fixed));
        std::vector<double> pull(n - fixed, 0.0);
        for (std::size_t i = fixed; i < n; ++i) {
          for (std::size_t j = fixed; j < n; ++j) {
            rest[i - fixed][j - fixed] = moment(order[i], order[j]);
          }
          for (std::size_t f = 0; f < fixed; ++f) {
            pull[i - fixed] +=
                moment(order[i], order[f]) * (double{original[order[f]]} - double{out[order[f]]});
          }
        }
        value += solve(rest, pull)[0];
      }
      out[order[fixed]] = grids.round(row, order[fixed], static_cast<float>(value));
    }
  }
  return result;
}

// The CPU, and the same behind memory that the host cannot touch.
std::vector<std::unique_ptr<Backend>> both_places() {
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(test::exact_backend(2));
  backends.push_back(test::apart_backend(test::exact_backend(2)));
  return backends;
}

// Grids of all rows, in parts of so many.
std::vector<WeightGrids> grids_in_parts(const FormatPtr& format, const std::vector<float>& w,
                                        std::int64_t rows, std::int64_t part) {
  const std::int64_t cols = static_cast<std::int64_t>(w.size()) / rows;
  std::vector<WeightGrids> grids;
  for (std::int64_t begin = 0; begin < rows; begin += part) {
    grids.emplace_back(format, w.data() + begin * cols, std::min(part, rows - begin), cols);
  }
  return grids;
}

int rows_apart(const std::vector<float>& a, const std::vector<float>& b, std::int64_t cols) {
  int count = 0;
  for (auto row = a.begin(); row != a.end(); row += cols) {
    count += std::equal(row, row + cols, b.begin() + (row - a.begin())) ? 0 : 1;
  }
  return count;
}

TEST(GptqRows, FollowTheDefinition) {
  constexpr std::int64_t kN = 24, kRows = 12;
  const Hessian h = hessian_of(activations(100, kN, 8), kN);
  const std::vector<float> w = random_values(kN * kRows, 9);
  const auto backends = both_places();
  for (const char* name : {"int3_g8_asym_sf32", "int4_channel_sym_sf32", "nf4_g8", "nf2_tensor"}) {
    for (const ColumnOrder kind :
         {ColumnOrder::kStored, ColumnOrder::kActivation, ColumnOrder::kGroups}) {
      SCOPED_TRACE(name);
      const FormatPtr format = parse_weight_format(name);
      const std::int64_t part = rows_at_once(*format, kRows) == kRows ? kRows : 5;
      std::vector<WeightGrids> grids = grids_in_parts(format, w, kRows, part);
      const auto order = column_order(kind, h, grids.front().group_length());
      const auto expected = [&] {
        const WeightGrids all(format, w.data(), kRows, kN);
        return round_by_definition(h, 0.01, order, all, w);
      }();
      for (const std::int64_t block : {1, 5, 8, 128}) {
        std::vector<std::vector<float>> results;
        for (const auto& backend : backends) {
          const auto factor = inverse_factor(h, order, 0.01, *backend);
          std::vector<float>& found = results.emplace_back(w);
          gptq_rows({*factor, order, block, {}}, grids, *backend, found.data());
        }
        // The two may fall on different sides of a tie; then the rest of that row differs too.
        EXPECT_LE(rows_apart(results[0], expected, kN), 1) << block;
        EXPECT_NE(results[0], w);
        EXPECT_EQ(results[0], results[1]) << "apart from the host, " << block;
      }
    }
  }
}

TEST(GptqRows, RefitsGroupsToTheWeightsAsTheyStand) {
  constexpr std::int64_t kN = 32, kRows = 4;
  const Hessian h = hessian_of(activations(100, kN, 10), kN);
  const std::vector<float> w = random_values(kN * kRows, 11);
  const auto order = column_order(ColumnOrder::kStored, h, 8);
  const auto backends = both_places();
  for (const char* name : {"int4_g8_asym", "fp4_e2m1_g8_se8m0"}) {
    const FormatPtr format = parse_weight_format(name);
    // Blocks of whole groups, and groups of whole blocks.
    for (const std::int64_t block : {20, 4}) {
      std::vector<std::vector<float>> results;
      for (const auto& backend : backends) {
        const auto factor = inverse_factor(h, order, 0.01, *backend);
        std::vector<std::int64_t> begins;
        GptqSteps steps{*factor, order, block, {}};
        steps.refit = [&](const float* group, std::int64_t rows, std::int64_t begin,
                          std::int64_t cols) {
          begins.push_back(begin);
          return WeightGrids(format, group, rows, cols);
        };
        std::vector<WeightGrids> grids = grids_in_parts(format, w, kRows, kRows);
        std::vector<float>& found = results.emplace_back(w);
        gptq_rows(steps, grids, *backend, found.data());
        EXPECT_THAT(begins, testing::ElementsAre(0, 8, 16, 24));
        // What was rounded lies on the grids that were taken.
        std::vector<float> stored(found.size());
        decode_all(grids.front().encode(found.data()), stored.data());
        EXPECT_EQ(stored, found);
      }
      EXPECT_EQ(results[0], results[1]) << block;
    }
  }
}

// Every weight is then the best of its grid, and no refinement raises the error.
TEST(RefineRows, LowersTheErrorToWhereNoWeightAloneCanLowerIt) {
  constexpr std::int64_t kN = 64, kRows = 5;
  const auto backend = test::exact_backend(1);
  const Hessian h = hessian_of(activations(300, kN, 20), kN);
  const std::vector<float> w = random_values(kN * kRows, 21);
  const auto order = column_order(ColumnOrder::kActivation, h, 32);
  const auto factor = inverse_factor(h, order, 0.01, *backend);
  const std::vector<float> moments = damped_moments(h, 0.01);
  const auto cost = [&](std::int64_t row, const std::vector<float>& q) {
    double sum = 0;
    for (std::int64_t i = 0; i < kN; ++i) {
      for (std::int64_t j = 0; j < kN; ++j) {
        sum += double{moments[i * kN + j]} * (double{q[row * kN + i]} - double{w[row * kN + i]}) *
               (double{q[row * kN + j]} - double{w[row * kN + j]});
      }
    }
    return sum;
  };
  for (const char* name : {"int3_g32_asym_sbf16", "int2_channel_sym", "fp4_e2m1_g16_se8m0"}) {
    SCOPED_TRACE(name);
    WeightGrids grids(parse_weight_format(name), w.data(), kRows, kN);
    std::vector<float> found = w;
    gptq_rows({*factor, order, 128, {}}, {&grids, 1}, *backend, found.data());
    const std::vector<float> before = found;
    refine_rows(moments, 3, w.data(), grids, found.data());
    std::vector<float> stored(found.size());
    decode_all(grids.encode(found.data()), stored.data());
    EXPECT_EQ(stored, found);  // it lies on the grids
    double sum_before = 0, sum_after = 0;
    for (std::int64_t row = 0; row < kRows; ++row) {
      sum_before += cost(row, before);
      sum_after += cost(row, found);
      EXPECT_LE(cost(row, found), cost(row, before) * (1 + 1e-6));
      for (std::int64_t j = 0; j < kN; j += 7) {
        for (const float nudge : {-1.0f, -0.4f, 0.4f, 1.0f}) {
          std::vector<float> other = found;
          float& value = other[static_cast<std::size_t>(row * kN + j)];
          value = grids.round(row, j, value + nudge);
          EXPECT_GE(cost(row, other), cost(row, found) * (1 - 1e-5));
        }
      }
    }
    EXPECT_LT(sum_after, 0.99 * sum_before);
  }
}

double error_of(const Hessian& h, const QuantTensor& stored, const std::vector<float>& w) {
  ThreadPool pool(1);
  std::vector<float> difference(w.size());
  decode_all(stored, difference.data());
  for (std::size_t i = 0; i < w.size(); ++i) difference[i] -= w[i];
  return output_error(h, difference, pool);
}

TEST(EncodeTrellis, FeedsErrorsToTheColumnsToCome) {
  constexpr std::int64_t kN = 32, kRows = 17;
  const Hessian h = hessian_of(activations(300, kN, 30), kN);
  const std::vector<float> w = random_values(kN * kRows, 31);
  const FormatPtr format = parse_weight_format("trellis2");
  const Hessian rotated = rotated_hessian(h);
  // The error is the same in both coordinates.
  std::vector<float> difference = w;
  const auto backend = test::exact_backend(1);
  ThreadPool one(1), three(3);
  const double before = output_error(h, difference, one);
  trellis_rotate(difference.data(), kRows, kN);
  EXPECT_NEAR(output_error(rotated, difference, one), before, 1e-4 * before);
  const auto order = column_order(ColumnOrder::kStored, rotated, 1);
  const auto factor = inverse_factor(rotated, order, 0.01, *backend);
  const Codec alone{&scalar_spans(), &one}, shared{&scalar_spans(), &three};
  const QuantTensor found = encode_trellis(format, *factor, difference, kRows, shared);
  EXPECT_LT(error_of(h, found, w), 0.8 * error_of(h, format->encode(w.data(), kRows, kN), w));
  const QuantTensor again = encode_trellis(format, *factor, difference, kRows, alone);
  EXPECT_TRUE(std::ranges::equal(found.planes[0].bytes(), again.planes[0].bytes()));
}

TEST(Compensated, ByTheErrorOfTheOutput) {
  constexpr std::int64_t kN = 64, kRows = 24;
  const auto backend = test::exact_backend(2);
  const Codec codec{&scalar_spans(), &backend->pool()};
  const Hessian h = hessian_of(activations(300, kN, 40), kN);
  const std::vector<float> w = random_values(kN * kRows, 41);
  const FormatPtr format = parse_weight_format("int2_g32_asym_lr4");
  const QuantTensor base =
      make_format(*format->descriptor().element.base)->encode(w.data(), kRows, kN);
  const auto order = column_order(ColumnOrder::kStored, h, 1);
  const auto factor = inverse_factor(h, order, 0, *backend);
  const double by_output = error_of(h, compensated(format, base, w.data(), &*factor, {}, codec), w);
  const double by_channels =
      error_of(h, compensated(format, base, w.data(), nullptr, h.second_moment(), codec), w);
  const double by_weights = error_of(h, compensated(format, base, w.data(), nullptr, {}, codec), w);
  EXPECT_LT(by_output, 0.98 * by_channels);
  EXPECT_LT(by_output, 0.98 * by_weights);
  EXPECT_LT(by_output, 0.8 * error_of(h, base, w));
}

TEST(FollowDrift, GivesTheLeastSquaresWeights) {
  constexpr std::int64_t kN = 12, kTokens = 60, kRows = 3;
  const std::vector<float> x = activations(kTokens, kN, 12);
  std::vector<float> full = activations(kTokens, kN, 13);
  for (std::size_t i = 0; i < full.size(); ++i) full[i] = x[i] + 0.2f * full[i];
  // What the results are added to lacks something that the input tells in part.
  const std::vector<float> missing = random_values(kTokens * kRows, 15);
  const auto backend = test::exact_backend(2);
  HessianSums sums(*backend, kN);
  sums.add(x.data(), full.data(), kTokens);
  sums.add_residual(missing.data(), kRows, x.data(), kTokens);
  const Hessian h = sums.hessian();
  const auto order = column_order(ColumnOrder::kActivation, h, kN);
  const std::vector<float> w = random_values(kN * kRows, 14);
  std::vector<std::vector<float>> results;
  for (const auto& place : both_places()) {
    const auto factor = inverse_factor(h, order, 0, *place);
    follow_drift(h, *factor, order, {1, 1}, kRows, *place, results.emplace_back(w).data());
  }
  const std::vector<float>& moved = results[0];
  EXPECT_EQ(moved, results[1]);
  Matrix gram(kN, std::vector<double>(kN, 0.0));
  for (std::int64_t t = 0; t < kTokens; ++t) {
    for (std::int64_t i = 0; i < kN; ++i) {
      for (std::int64_t j = 0; j < kN; ++j) gram[i][j] += double{x[t * kN + i]} * x[t * kN + j];
    }
  }
  for (std::int64_t row = 0; row < kRows; ++row) {
    std::vector<double> target(kN, 0.0);
    for (std::int64_t t = 0; t < kTokens; ++t) {
      double output = double{missing[t * kRows + row]};
      for (std::int64_t j = 0; j < kN; ++j) output += double{w[row * kN + j]} * full[t * kN + j];
      for (std::int64_t j = 0; j < kN; ++j) target[j] += output * x[t * kN + j];
    }
    const std::vector<double> expected = solve(gram, target);
    for (std::int64_t j = 0; j < kN; ++j) EXPECT_NEAR(moved[row * kN + j], expected[j], 1e-4);
  }
}

}  // namespace
}  // namespace nibble
