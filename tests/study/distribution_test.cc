#include "study/distribution.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "base/error.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using std::numbers::pi;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Distribution, WholeMass) {
  for (const auto& d :
       {uniform_distribution(2), normal_distribution(), laplace_distribution(),
        student_t_distribution(0.7), student_t_distribution(2), student_t_distribution(30),
        mixture_distribution(normal_distribution(), uniform_distribution(20), 0.01)}) {
    const Moments all = d->above(-kInfinity);
    EXPECT_NEAR(all.mass, 1, 1e-12);
    EXPECT_NEAR(all.first, 0, 1e-12);
    EXPECT_NEAR(d->above(0).mass, 0.5, 1e-12);
    EXPECT_EQ(d->above(kInfinity).mass, 0);
  }
}

TEST(Distribution, Variances) {
  EXPECT_NEAR(deviation(*uniform_distribution(1)), std::sqrt(1.0 / 3), 1e-12);
  EXPECT_NEAR(deviation(*normal_distribution()), 1, 1e-12);
  EXPECT_NEAR(deviation(*laplace_distribution()), std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(deviation(*student_t_distribution(20)), std::sqrt(20.0 / 18), 1e-12);
}

// Closed forms of small whole degrees of freedom.
TEST(StudentT, Masses) {
  for (const double x : {0.01, 0.5, 1.0, 3.0, 17.0, 99.0}) {
    EXPECT_NEAR(student_t_distribution(1)->above(x).mass, 0.5 - std::atan(x) / pi, 1e-13);
    EXPECT_NEAR(student_t_distribution(2)->above(x).mass, 0.5 - x / (2 * std::sqrt(2 + x * x)),
                1e-13);
    const double u = x / std::sqrt(3.0);
    EXPECT_NEAR(student_t_distribution(3)->above(x).mass,
                0.5 - (u / (1 + u * u) + std::atan(u)) / pi, 1e-13);
  }
  EXPECT_EQ(student_t_distribution(3)->above(100).mass, 0);  // beyond the limit
}

TEST(StudentT, SecondMoments) {
  // nu = 1: x^2 / (pi (1 + x^2)) integrates to (x - atan x) / pi; what lies beyond moves to 100.
  const auto cauchy = student_t_distribution(1, 100);
  const double beyond = 0.5 - std::atan(100.0) / pi;
  for (const double x : {0.0, 0.7, 5.0}) {
    const double inside = (100 - std::atan(100.0) - x + std::atan(x)) / pi;
    EXPECT_NEAR(cauchy->above(x).second, inside + 1e4 * beyond, 1e-10);
    EXPECT_NEAR(cauchy->above(x).first, std::log((1 + 1e4) / (1 + x * x)) / (2 * pi) + 100 * beyond,
                1e-11);
  }
}

TEST(StudentT, FirstMomentOfThree) {
  const auto t = student_t_distribution(3, 50);
  const double c = 2 / (pi * std::sqrt(3.0));
  const auto antiderivative = [&](double x) { return -c * 1.5 / (1 + x * x / 3); };
  EXPECT_NEAR(
      t->above(2).first,
      antiderivative(50) - antiderivative(2) +
          50 * (0.5 -
                (50 / std::sqrt(3.0) / (1 + 2500.0 / 3) + std::atan(50 / std::sqrt(3.0))) / pi),
      1e-12);
}

TEST(StudentT, DegreesOfFreedomArePositive) {
  EXPECT_ERROR(student_t_distribution(0), ErrorKind::kUsage, "nu");
}

TEST(Empirical, CountsValuesAbove) {
  const std::vector<float> values = {3, -1, 2, 2};
  const auto d = empirical_distribution(values);
  EXPECT_DOUBLE_EQ(d->above(2).mass, 0.25);
  EXPECT_DOUBLE_EQ(d->above(1.5).first, 7.0 / 4);
  EXPECT_DOUBLE_EQ(d->above(-kInfinity).second, 18.0 / 4);
  EXPECT_DOUBLE_EQ(d->largest(), 3);
  EXPECT_DOUBLE_EQ(d->least(), -1);
  EXPECT_DOUBLE_EQ(d->greatest(), 3);
}

// Of more values than are there only the largest magnitude is known.
TEST(Empirical, ALargerMagnitudeBelongsToTheFurtherEnd) {
  const std::vector<float> values = {-3, 1, 2};
  const auto d = empirical_distribution(values, 5);
  EXPECT_DOUBLE_EQ(d->least(), -5);
  EXPECT_DOUBLE_EQ(d->greatest(), 2);
  const std::vector<float> above = {1, 2};
  EXPECT_DOUBLE_EQ(empirical_distribution(above)->least(), 1);
}

TEST(Empirical, RefusesWhatHasNoDistribution) {
  EXPECT_ERROR(empirical_distribution({}), ErrorKind::kUsage, "without values");
  const std::vector<float> bad = {1, std::nanf("")};
  EXPECT_ERROR(empirical_distribution(bad), ErrorKind::kCorrupt, "NaN");
}

}  // namespace
}  // namespace nibble
