#include "eval/row_math.h"

#include <cmath>
#include <limits>
#include <vector>

#include "eval/nll_sum.h"
#include "eval/perplexity.h"
#include "eval/quantile.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using Row = std::vector<float>;
constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

// float32 inputs of about 1 carry 2^-24; the arithmetic in double adds nothing to speak of.
constexpr double kInputRounding = 0x1p-22;

TEST(RowMath, NegativeLogLikelihoodOfKnownProbabilities) {
  const Row row = {std::log(0.25f), std::log(0.5f), std::log(0.25f)};
  EXPECT_NEAR(negative_log_likelihood(row, 0), std::log(4.0), kInputRounding);
  EXPECT_NEAR(negative_log_likelihood(row, 1), std::log(2.0), kInputRounding);
}

TEST(RowMath, LargeLogitsDoNotOverflow) {
  EXPECT_DOUBLE_EQ(log_sum_exp(Row{10000, 10000}), 10000 + std::log(2.0));
  EXPECT_DOUBLE_EQ(log_sum_exp(Row{-10000, -10000}), -10000 + std::log(2.0));
}

TEST(RowMath, FiniteMeansNoNanAndNoInfinity) {
  EXPECT_TRUE(all_finite(Row{0, -1, std::numeric_limits<float>::max()}));
  for (const float bad : {kNan, -kNan, kInf, -kInf}) {
    EXPECT_FALSE(all_finite(Row{0, bad, 1}));
    EXPECT_TRUE(std::isnan(negative_log_likelihood(Row{0, bad, 1}, 0)));
    EXPECT_TRUE(std::isnan(kl_divergence(Row{0, 1}, Row{bad, 0})));
    EXPECT_TRUE(std::isnan(kl_divergence(Row{bad, 1}, Row{0, 0})));
  }
}

TEST(RowMath, DivergenceOfKnownDistributions) {
  const Row p = {std::log(0.5f), std::log(0.5f)};
  const Row q = {std::log(0.25f), std::log(0.75f)};
  EXPECT_NEAR(kl_divergence(p, q), 0.5 * std::log(2.0) + 0.5 * std::log(2.0 / 3), kInputRounding);
  EXPECT_NEAR(kl_divergence(q, p), 0.25 * std::log(0.5) + 0.75 * std::log(1.5), kInputRounding);
  EXPECT_EQ(kl_divergence(p, p), 0);
}

TEST(RowMath, DivergenceIgnoresAConstantAddedToAllLogits) {
  const Row p = {1, 2, 3};
  EXPECT_NEAR(kl_divergence(p, Row{101, 102, 103}), 0, 1e-14);
}

TEST(Quantile, InterpolatesBetweenNeighbours) {
  const std::vector<double> values = {5, 1, 4, 2, 3};
  EXPECT_DOUBLE_EQ(quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(values, 1), 5);
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 3);
  EXPECT_DOUBLE_EQ(quantile(values, 0.99), 4.96);  // numpy.quantile([1, 2, 3, 4, 5], 0.99)
  EXPECT_DOUBLE_EQ(quantile({7}, 0.99), 7);
  EXPECT_TRUE(std::isnan(quantile({}, 0.5)));
}

TEST(NllSum, MeanStandardErrorAndNan) {
  NllSum sum;
  for (const double v : {1.0, 2.0, std::nan(""), 3.0, 4.0}) sum.add(v);
  const PerplexityResult result = sum.result(6);
  EXPECT_DOUBLE_EQ(result.mean_nll, 2.5);
  EXPECT_DOUBLE_EQ(result.perplexity, std::exp(2.5));
  EXPECT_DOUBLE_EQ(result.stderr_nll, std::sqrt(5.0 / 3 / 4));
  EXPECT_EQ(result.predicted, 4);
  EXPECT_EQ(result.nan, 1);
  EXPECT_EQ(result.tokens, 6);
}

TEST(NllSum, NothingFiniteIsNan) {
  NllSum sum;
  sum.add(std::nan(""));
  EXPECT_TRUE(std::isnan(sum.result(2).perplexity));
  EXPECT_EQ(sum.result(2).predicted, 0);
}

}  // namespace
}  // namespace nibble
