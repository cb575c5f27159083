// Every implementation of the ops that multiply and factor large matrices, against their
// definitions in double.
#include <cmath>
#include <limits>

#include "contract/op_support.h"
#include "support/tolerance.h"

namespace nibble::test {
namespace {

using MatrixImpls = ::testing::TestWithParam<std::string>;

std::string impl_name(const ::testing::TestParamInfo<std::string>& test) { return test.param; }

// ---- subtract_product

struct ProductShape {
  std::int64_t m, n, k;
};

// Operands with some numbers between their rows that must not count.
struct ProductCase {
  explicit ProductCase(const ProductShape& s)
      : shape(s),
        a(random_floats(s.m * (s.k + 3), 201)),
        b(random_floats(s.k * (s.n + 1), 202, 2)),
        before(random_floats(s.m * s.n, 203)),
        c(s.m, s.n, s.n + 5) {
    for (std::int64_t i = 0; i < s.m * s.n; ++i) {
      c.data()[i / s.n * (s.n + 5) + i % s.n] = before[static_cast<std::size_t>(i)];
    }
  }

  SubtractProductArgs args() {
    return {.a = a.data(),
            .a_stride = shape.k + 3,
            .b = b.data(),
            .b_stride = shape.n + 1,
            .c = c.data(),
            .c_stride = shape.n + 5,
            .m = shape.m,
            .n = shape.n,
            .k = shape.k};
  }

  std::string check() const {
    if (!c.damage().empty()) return c.damage();
    for (std::int64_t i = 0; i < shape.m; ++i) {
      for (std::int64_t j = 0; j < shape.n; ++j) {
        double expected = double{before[static_cast<std::size_t>(i * shape.n + j)]};
        double size = std::abs(expected);
        for (std::int64_t t = 0; t < shape.k; ++t) {
          const double product = double{a[static_cast<std::size_t>(i * (shape.k + 3) + t)]} *
                                 double{b[static_cast<std::size_t>(t * (shape.n + 1) + j)]};
          expected -= product;
          size += std::abs(product);
        }
        if (!(std::abs(double{c.at(i, j)} - expected) <= dot_error_bound(shape.k + 1, size))) {
          return fmt::format("[{}, {}]: {} instead of {}", i, j, c.at(i, j), expected);
        }
      }
    }
    return "";
  }

  ProductShape shape;
  std::vector<float> a, b, before;
  GuardedOutput c;
};

class SubtractProductContract : public MatrixImpls {};
TEST_P(SubtractProductContract, SubtractsAndTouchesNothingElse) {
  const auto backend = forced_backend("subtract_product", GetParam());
  for (const ProductShape& shape : {ProductShape{1, 1, 1},
                                    {1, 17, 130},
                                    {17, 1, 5},
                                    {17, 130, 128},
                                    {130, 1024, 17},
                                    {1024, 130, 130},
                                    {128, 128, 1024},
                                    {5, 3, 0},
                                    {0, 3, 3},
                                    {300, 700, 64}}) {
    ProductCase one(shape);
    backend->run(one.args());
    EXPECT_EQ(one.check(), "") << shape.m << " x " << shape.n << " x " << shape.k;
  }
}

TEST_P(SubtractProductContract, TakesEachRowByItself) {
  const auto backend = forced_backend("subtract_product", GetParam());
  ProductCase all({150, 200, 130}), each({150, 200, 130});
  backend->run(all.args());
  SubtractProductArgs row = each.args();
  row.m = 1;
  for (std::int64_t i = 0; i < all.shape.m; ++i) {
    backend->run(row);
    row.a += row.a_stride;
    row.c += row.c_stride;
  }
  for (std::int64_t i = 0; i < all.shape.m; ++i) {
    for (std::int64_t j = 0; j < all.shape.n; ++j) ASSERT_EQ(all.c.at(i, j), each.c.at(i, j));
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, SubtractProductContract,
                         ::testing::ValuesIn(usable_impls("subtract_product")), impl_name);

// ---- inverse_factor

// Correlated columns, of sizes that spread over `decades` powers of ten. [n, n].
std::vector<double> positive_matrix(std::int64_t n, double decades) {
  const std::int64_t rows = n + 20;
  std::vector<float> x = random_floats(rows * n, 211);
  for (std::int64_t i = 0; i < rows * n; ++i) {
    if (i % n > 0) x[static_cast<std::size_t>(i)] += 0.9f * x[static_cast<std::size_t>(i - 1)];
  }
  std::vector<double> h(static_cast<std::size_t>(n * n), 0.0);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* const row = x.data() + r * n;
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        h[static_cast<std::size_t>(i * n + j)] += double{row[i]} * double{row[j]};
      }
    }
  }
  const auto size = [&](std::int64_t i) {
    return std::pow(10.0,
                    decades * (static_cast<double>(i * 7 % n) / static_cast<double>(n) - 0.5));
  };
  for (std::int64_t i = 0; i < n * n; ++i) {
    h[static_cast<std::size_t>(i)] *= size(i / n) * size(i % n);
  }
  return h;
}

struct FactorResult {
  bool definite = false;
  GuardedOutput upper;
};

// What lies below the diagonal is poisoned first.
FactorResult factor(Backend& backend, std::vector<double> h, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < i; ++j) h[static_cast<std::size_t>(i * n + j)] = NAN;
  }
  FactorResult result{false, GuardedOutput(n, n, n)};
  backend.run(InverseFactorArgs{h.data(), n, result.upper.data(), &result.definite});
  return result;
}

// U h U^T = I, as far as rounding U to float32 lets it; of some rows.
std::string check_factor(const GuardedOutput& upper, const std::vector<double>& h, std::int64_t n) {
  if (!upper.damage().empty()) return upper.damage();
  const double unit = 3 * unit_roundoff(DType::kF32);
  for (std::int64_t i = 0; i < n; ++i) {
    if (!(upper.at(i, i) > 0)) return fmt::format("diagonal {}: {}", i, upper.at(i, i));
    for (std::int64_t j = 0; j < i; ++j) {
      if (upper.at(i, j) != 0) return fmt::format("[{}, {}] is {}", i, j, upper.at(i, j));
    }
  }
  for (std::int64_t i = 0; i < n; i += n < 100 ? 1 : n / 9) {
    std::vector<double> row(static_cast<std::size_t>(n), 0.0), size = row;
    for (std::int64_t k = i; k < n; ++k) {
      for (std::int64_t j = 0; j < n; ++j) {
        const double product = double{upper.at(i, k)} * h[static_cast<std::size_t>(k * n + j)];
        row[static_cast<std::size_t>(j)] += product;
        size[static_cast<std::size_t>(j)] += std::abs(product);
      }
    }
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0, magnitude = 0;
      for (std::int64_t k = j; k < n; ++k) {
        sum += row[static_cast<std::size_t>(k)] * double{upper.at(j, k)};
        magnitude += size[static_cast<std::size_t>(k)] * std::abs(double{upper.at(j, k)});
      }
      if (!(std::abs(sum - (i == j ? 1 : 0)) <= unit * magnitude)) {
        return fmt::format("U h U^T [{}, {}] is {}, of a sum of {}", i, j, sum, magnitude);
      }
    }
  }
  return "";
}

class InverseFactorContract : public MatrixImpls {};
TEST_P(InverseFactorContract, SquaresToTheInverse) {
  const auto backend = forced_backend("inverse_factor", GetParam());
  const FactorResult two = factor(*backend, {4, 2, 2, 3}, 2);  // h^-1 = [3 -2; -2 4] / 8
  ASSERT_TRUE(two.definite);
  EXPECT_FLOAT_EQ(two.upper.at(0, 0), std::sqrt(3.0f / 8));
  EXPECT_FLOAT_EQ(two.upper.at(0, 1), -std::sqrt(1.0f / 6));
  EXPECT_FLOAT_EQ(two.upper.at(1, 1), std::sqrt(1.0f / 3));
  for (const std::int64_t n : {1, 2, 17, 63, 64, 65, 130, 600, 1024}) {
    for (const double decades : {0.0, 6.0}) {
      const std::vector<double> h = positive_matrix(n, decades);
      const FactorResult result = factor(*backend, h, n);
      ASSERT_TRUE(result.definite) << n;
      EXPECT_EQ(check_factor(result.upper, h, n), "") << n << ", " << decades << " decades";
    }
  }
}

TEST_P(InverseFactorContract, SaysWhatIsNotPositiveDefinite) {
  const auto backend = forced_backend("inverse_factor", GetParam());
  for (const double bad : {-1.0, 0.0, double{NAN}, std::numeric_limits<double>::infinity()}) {
    EXPECT_FALSE(factor(*backend, {1, 0, 0, bad}, 2).definite) << bad;
    EXPECT_FALSE(factor(*backend, {bad, 0, 0, 1}, 2).definite) << bad;
    const std::int64_t n = 130;
    std::vector<double> h = positive_matrix(n, 0);
    h[static_cast<std::size_t>(70 * (n + 1))] = bad;
    const FactorResult result = factor(*backend, h, n);
    EXPECT_FALSE(result.definite) << bad;
    EXPECT_EQ(result.upper.damage(), "");
  }
}

TEST_P(InverseFactorContract, IsTheSameOnAnyNumberOfThreads) {
  const std::int64_t n = 300;
  const std::vector<double> h = positive_matrix(n, 1);
  const FactorResult one = factor(*forced_backend("inverse_factor", GetParam(), 1), h, n);
  const FactorResult three = factor(*forced_backend("inverse_factor", GetParam(), 3), h, n);
  ASSERT_TRUE(one.definite && three.definite);
  for (std::int64_t i = 0; i < n * n; ++i) {
    ASSERT_EQ(one.upper.at(i / n, i % n), three.upper.at(i / n, i % n));
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, InverseFactorContract,
                         ::testing::ValuesIn(usable_impls("inverse_factor")), impl_name);

}  // namespace
}  // namespace nibble::test
