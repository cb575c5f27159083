// Every implementation of the row-wise ops, against their definitions in double.
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "contract/op_support.h"
#include "formats/registry.h"
#include "support/tolerance.h"

namespace nibble::test {
namespace {

constexpr std::int64_t kCols[] = {1, 3, 16, 31, 64, 517};
const double kUnit = unit_roundoff(DType::kF32);

using Impls = ::testing::TestWithParam<std::string>;

std::string name_of(const ::testing::TestParamInfo<std::string>& test) { return test.param; }

// ---- norm

struct NormCase {
  NormKind kind = NormKind::kRms;
  std::int64_t cols = 1;
  bool weight = true;
  bool bias = false;
  float offset = 0;
  bool in_place = false;
};

std::string check_norm(Backend& backend, const NormCase& c) {
  const std::int64_t rows = 5, stride = c.cols + 2;
  std::vector<float> x = random_floats(rows * stride, 31, 3);
  for (float& v : x) v += 1;
  const std::vector<float> weight = random_floats(c.cols, 32), bias = random_floats(c.cols, 33);
  GuardedOutput y(rows, c.cols, stride);
  std::vector<float> input = x;
  NormArgs args;
  args.kind = c.kind;
  args.x = c.in_place ? input.data() : x.data();
  args.x_stride = stride;
  args.rows = rows;
  args.cols = c.cols;
  args.weight = c.weight ? weight.data() : nullptr;
  args.bias = c.bias ? bias.data() : nullptr;
  args.weight_offset = c.offset;
  args.eps = 1e-5f;
  args.y = c.in_place ? input.data() : y.data();
  args.y_stride = stride;
  backend.run(args);
  if (!y.damage().empty()) return y.damage();
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = x.data() + r * stride;
    double mean = 0, magnitude = 0, square = 0;
    for (std::int64_t i = 0; i < c.cols; ++i) mean += row[i];
    mean = c.kind == NormKind::kLayer ? mean / static_cast<double>(c.cols) : 0;
    for (std::int64_t i = 0; i < c.cols; ++i) {
      magnitude = std::max(magnitude, std::abs(static_cast<double>(row[i])));
      square += (row[i] - mean) * (row[i] - mean);
    }
    const double inverse = 1 / std::sqrt(square / static_cast<double>(c.cols) + 1e-5);
    for (std::int64_t i = 0; i < c.cols; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double w =
          c.weight ? static_cast<double>(c.offset) + static_cast<double>(weight[at]) : 1;
      const double b = c.bias && c.kind == NormKind::kLayer ? static_cast<double>(bias[at]) : 0.0;
      const double expected = (row[i] - mean) * inverse * w + b;
      const double mean_error = mean == 0 ? 0 : dot_error_bound(c.cols + 2, magnitude);
      // The variance errs by gamma_n and by what the mean does to it; both act through the root.
      const double relative = dot_error_bound(c.cols + 8, 1) + mean_error * inverse;
      const double bound = std::abs(w) * inverse * mean_error +
                           relative * (std::abs(expected) + std::abs(b)) + 4 * kUnit * std::abs(b);
      const float actual =
          c.in_place ? input[static_cast<std::size_t>(r * stride + i)] : y.at(r, i);
      if (!(std::abs(static_cast<double>(actual) - expected) <= bound)) {
        return fmt::format("cols {} y[{}, {}]: {} instead of {}", c.cols, r, i, actual, expected);
      }
    }
  }
  return "";
}

class NormContract : public Impls {};
TEST_P(NormContract, EveryKindAndSize) {
  const auto backend = forced_backend("norm", GetParam());
  for (const std::int64_t cols : kCols) {
    for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
      EXPECT_EQ(check_norm(*backend, {.kind = kind, .cols = cols, .bias = true}), "");
      EXPECT_EQ(check_norm(*backend, {.kind = kind, .cols = cols, .offset = 1, .in_place = true}),
                "");
      EXPECT_EQ(check_norm(*backend, {.kind = kind, .cols = cols, .weight = false}), "");
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, NormContract, ::testing::ValuesIn(usable_impls("norm")), name_of);

// ---- hadamard

class HadamardContract : public Impls {};

// Against the signs of the definition, for sizes that are powers of two and for blocks of them.
TEST_P(HadamardContract, MultipliesByTheSignsOfItsIndices) {
  const auto backend = forced_backend("hadamard", GetParam());
  constexpr std::int64_t kRows = 5;
  for (const std::int64_t cols : {1, 2, 6, 8, 40, 64, 80, 96, 128, 192, 256, 512, 1024}) {
    const std::int64_t size = hadamard_size(cols);
    const std::vector<float> x = random_floats(kRows * cols, 47);
    std::vector<float> y = x;
    backend->run(HadamardArgs{y.data(), kRows, cols});
    const double scale = 1 / std::sqrt(static_cast<double>(size));
    for (std::int64_t i = 0; i < kRows * cols; ++i) {
      const std::int64_t begin = i / size * size;
      double sum = 0, magnitude = 0;
      for (std::int64_t j = 0; j < size; ++j) {
        const auto index = static_cast<std::uint64_t>((i - begin) & j);
        const double value = x[static_cast<std::size_t>(begin + j)];
        sum += std::popcount(index) % 2 == 0 ? value : -value;
        magnitude += std::abs(value);
      }
      ASSERT_NEAR(y[static_cast<std::size_t>(i)], sum * scale,
                  dot_error_bound(12, magnitude * scale) + 1e-30)
          << cols << " columns, " << i;
    }
    backend->run(HadamardArgs{y.data(), kRows, cols});
    for (std::size_t i = 0; i < x.size(); ++i) {
      ASSERT_NEAR(y[i], x[i], 1e-4f) << cols << " columns: not its own inverse";
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, HadamardContract, ::testing::ValuesIn(usable_impls("hadamard")),
                         name_of);

// ---- rope

class RopeContract : public Impls {};
TEST_P(RopeContract, RotatesPairsByTheAngle) {
  const auto backend = forced_backend("rope", GetParam());
  const std::int64_t heads = 3;
  const std::vector<std::int32_t> positions = {0, 1, 7, 1023, 100000};
  const auto rows = static_cast<std::int64_t>(positions.size());
  for (const std::int64_t rotary_dim : {2, 10, 32, 64, 128}) {
    for (const bool interleaved : {false, true}) {
      const std::int64_t head_stride = rotary_dim + 6, stride = heads * head_stride + 1;
      const std::vector<float> x = random_floats(rows * stride, 41);
      std::vector<float> y = x;
      std::vector<float> inv_freq;
      for (std::int64_t i = 0; i < rotary_dim / 2; ++i) {
        inv_freq.push_back(static_cast<float>(
            std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim))));
      }
      RopeArgs args;
      args.x = {y.data(), stride, head_stride};
      args.rows = rows;
      args.heads = heads;
      args.rotary_dim = rotary_dim;
      args.interleaved = interleaved;
      args.inv_freq = inv_freq;
      args.positions = positions;
      args.scale = 1.25f;
      if (!try_run(*backend, args)) continue;
      std::vector<double> expected(x.begin(), x.end());
      std::vector<double> bound(x.size(), 0.0);
      for (std::int64_t t = 0; t < rows; ++t) {
        for (std::int64_t h = 0; h < heads; ++h) {
          for (std::int64_t i = 0; i < rotary_dim / 2; ++i) {
            const auto base = t * stride + h * head_stride;
            const auto a = static_cast<std::size_t>(base + (interleaved ? 2 * i : i));
            const auto b =
                static_cast<std::size_t>(base + (interleaved ? 2 * i + 1 : i + rotary_dim / 2));
            const double angle = static_cast<float>(positions[static_cast<std::size_t>(t)]) *
                                 inv_freq[static_cast<std::size_t>(i)];
            const double c = 1.25 * std::cos(angle), s = 1.25 * std::sin(angle);
            expected[a] = x[a] * c - x[b] * s;
            expected[b] = x[b] * c + x[a] * s;
            bound[a] = bound[b] =
                8 * kUnit * 1.25 *
                (std::abs(static_cast<double>(x[a])) + std::abs(static_cast<double>(x[b])));
          }
        }
      }
      for (std::size_t i = 0; i < x.size(); ++i) {
        ASSERT_LE(std::abs(y[i] - expected[i]), bound[i]) << "dim " << rotary_dim << " at " << i;
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, RopeContract, ::testing::ValuesIn(usable_impls("rope")), name_of);

// ---- activation

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

const std::map<Activation, double (*)(double)> kActivations = {
    {Activation::kIdentity, [](double x) { return x; }},
    {Activation::kRelu, [](double x) { return std::max(x, 0.0); }},
    {Activation::kSilu, [](double x) { return x * sigmoid(x); }},
    {Activation::kGelu, [](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }},
    {Activation::kGeluTanh,
     [](double x) {
       return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
     }},
    {Activation::kGeluQuick, [](double x) { return x * sigmoid(1.702 * x); }},
    {Activation::kTanh, [](double x) { return std::tanh(x); }},
};

class ActivationContract : public Impls {
 protected:
  // A sweep over every magnitude, both signs, and random tails.
  static std::vector<float> inputs() {
    std::vector<float> x = {0.0f, -0.0f, 1e-38f, 0.625f, 1.0f,
                            4.0f, 87.0f, -87.0f, 100.0f, -104.0f};
    for (float v = 1e-6f; v < 60; v *= 1.003f) {
      x.push_back(v);
      x.push_back(-v);
    }
    return x;
  }
};

TEST_P(ActivationContract, IsAFewRoundingsFromExact) {
  const auto backend = forced_backend("activation", GetParam());
  const std::vector<float> x = inputs();
  const auto cols = static_cast<std::int64_t>(x.size());
  const std::vector<float> multiplier = random_floats(cols, 51);
  for (const auto& [kind, exact] : kActivations) {
    for (const float* factors : {static_cast<const float*>(nullptr), multiplier.data()}) {
      GuardedOutput y(1, cols, cols);
      ActivationArgs args;
      args.kind = kind;
      args.x = x.data();
      args.x_stride = cols;
      args.multiplier = factors;
      args.multiplier_stride = cols;
      args.rows = 1;
      args.cols = cols;
      args.y = y.data();
      args.y_stride = cols;
      backend->run(args);
      EXPECT_EQ(y.damage(), "");
      for (std::int64_t i = 0; i < cols; ++i) {
        const double input = x[static_cast<std::size_t>(i)];
        const double factor = factors == nullptr ? 1.0 : static_cast<double>(factors[i]);
        const double expected = exact(input) * factor;
        // Relative where the function does not cancel; gelu's 1 + erf(x) does, to units of x.
        const double bound =
            8 * kUnit * std::abs(expected) + 2 * kUnit * std::abs(input * factor) + 1e-37;
        ASSERT_LE(std::abs(static_cast<double>(y.at(0, i)) - expected), bound)
            << "kind " << static_cast<int>(kind) << " at " << input;
      }
    }
  }
}

TEST_P(ActivationContract, StridesTailsAliasesAndSoftcap) {
  const auto backend = forced_backend("activation", GetParam());
  for (const std::int64_t cols : kCols) {
    const std::int64_t rows = 3, stride = cols + 4;
    const std::vector<float> x = random_floats(rows * stride, 52, 4);
    std::vector<float> y = x;
    ActivationArgs args;
    args.kind = Activation::kTanh;
    args.softcap = 3;
    args.x = y.data();
    args.x_stride = stride;
    args.rows = rows;
    args.cols = cols;
    args.y = y.data();
    args.y_stride = stride;
    backend->run(args);
    for (std::int64_t i = 0; i < rows * stride; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double expected = i % stride < cols ? 3 * std::tanh(static_cast<double>(x[at]) / 3)
                                                : static_cast<double>(x[at]);
      ASSERT_LE(std::abs(y[at] - expected), i % stride < cols ? 8 * kUnit * 3 : 0.0)
          << cols << " at " << i;
    }
  }
}

TEST_P(ActivationContract, LimitsAndShifts) {
  const auto backend = forced_backend("activation", GetParam());
  const std::vector<float> x = {-9, 1, 3}, multiplier = {5, -5, 1};
  std::vector<float> y(3);
  ActivationArgs args;
  args.x = x.data();
  args.multiplier = multiplier.data();
  args.rows = 1;
  args.cols = 3;
  args.limit = 2;
  args.multiplier_offset = 1;
  args.y = y.data();
  if (!try_run(*backend, args)) GTEST_SKIP() << "not its case";
  EXPECT_EQ(y, (std::vector<float>{-9 * 3, 1 * -1, 2 * 2}));
}

TEST_P(ActivationContract, NanStaysNan) {
  const auto backend = forced_backend("activation", GetParam());
  const std::vector<float> x(5, std::numeric_limits<float>::quiet_NaN());
  for (const auto& [kind, exact] : kActivations) {
    std::vector<float> y(5, 0.0f);
    ActivationArgs args;
    args.kind = kind;
    args.x = x.data();
    args.rows = 1;
    args.cols = 5;
    args.y = y.data();
    backend->run(args);
    for (const float v : y) EXPECT_TRUE(std::isnan(v)) << static_cast<int>(kind);
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, ActivationContract, ::testing::ValuesIn(usable_impls("activation")),
                         name_of);

// ---- add

class AddContract : public Impls {};
TEST_P(AddContract, AddsAndTouchesNothingElse) {
  const auto backend = forced_backend("add", GetParam());
  for (const float scale : {1.0f, -1.0f, 0.3f}) {
    for (const std::int64_t count : {0, 1, 15, 16, 100, 40001}) {
      const std::vector<float> x = random_floats(count, 61), before = random_floats(count, 62);
      GuardedOutput y(1, count, count);
      std::copy(before.begin(), before.end(), y.data());
      backend->run(AddArgs{.x = x.data(), .y = y.data(), .count = count, .scale = scale});
      EXPECT_EQ(y.damage(), "");
      for (std::int64_t i = 0; i < count; ++i) {
        const float product = scale * x[static_cast<std::size_t>(i)];
        ASSERT_EQ(y.at(0, i), before[static_cast<std::size_t>(i)] + product);
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, AddContract, ::testing::ValuesIn(usable_impls("add")), name_of);

// ---- embed

class EmbedContract : public Impls {};
TEST_P(EmbedContract, DecodesScalesAndAccumulates) {
  const auto backend = forced_backend("embed", GetParam());
  const std::vector<std::int32_t> ids = {4, 0, 4, 2};
  for (const char* name : {"f32", "bf16", "int4_g8_asym"}) {
    const std::vector<float> values = random_floats(5 * 24, 71);
    const QuantTensor table = parse_weight_format(name)->encode(values.data(), 5, 24);
    std::vector<float> decoded(5 * 24);
    decode_all(table, decoded.data());
    for (const bool accumulate : {false, true}) {
      GuardedOutput out(4, 24, 24);
      for (std::int64_t i = 0; accumulate && i < 4 * 24; ++i) out.data()[i] = 0.5f;
      EmbedArgs args;
      args.table = &table;
      args.ids = ids;
      args.scale = 3;
      args.out = out.data();
      args.accumulate = accumulate;
      backend->run(args);
      EXPECT_EQ(out.damage(), "");
      for (std::int64_t i = 0; i < 4 * 24; ++i) {
        const float scaled =
            decoded[static_cast<std::size_t>(ids[static_cast<std::size_t>(i / 24)] * 24 + i % 24)] *
            3;
        ASSERT_EQ(out.at(i / 24, i % 24), accumulate ? 0.5f + scaled : scaled) << name;
      }
    }
  }
}
TEST_P(EmbedContract, FindsWhatWasChosenInItsMemory) {
  const auto backend = forced_backend("embed", GetParam());
  const std::vector<std::int32_t> ids = {4, -3, -1, 2, -2};
  const std::vector<std::int32_t> chosen = {3, -1, 1};  // one of broken logits
  const std::int32_t expected[] = {4, 1, 3, 2, 0};
  const std::vector<float> values = random_floats(5 * 24, 72);
  const QuantTensor table = parse_weight_format("f32")->encode(values.data(), 5, 24);
  GuardedOutput out(5, 24, 24);
  EmbedArgs args;
  args.table = &table;
  args.ids = ids;
  args.chosen = chosen.data();
  args.out = out.data();
  backend->run(args);
  EXPECT_EQ(out.damage(), "");
  for (std::int64_t i = 0; i < 5 * 24; ++i) {
    ASSERT_EQ(out.at(i / 24, i % 24),
              values[static_cast<std::size_t>(expected[i / 24] * 24 + i % 24)])
        << i;
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, EmbedContract, ::testing::ValuesIn(usable_impls("embed")), name_of);

// ---- mixture of experts

class MoeRouteContract : public Impls {};
TEST_P(MoeRouteContract, PicksTheLargestAndTheLowerOfTies) {
  const auto backend = forced_backend("moe_route", GetParam());
  const std::vector<float> logits = {1, 3, 2, 3, /**/ 0, 0, 0, 0};
  std::vector<std::int32_t> chosen(4, -1);
  std::vector<float> weights(4);
  MoeRouteArgs args;
  args.logits = logits.data();
  args.rows = 2;
  args.experts = 4;
  args.top_k = 2;
  args.chosen = chosen.data();
  args.weights = weights.data();
  backend->run(args);
  EXPECT_EQ(chosen, (std::vector<std::int32_t>{1, 3, 0, 1}));
  for (const float w : weights) EXPECT_FLOAT_EQ(w, 0.5f);
  args.renormalize = false;
  backend->run(args);
  EXPECT_FLOAT_EQ(weights[0], static_cast<float>(std::exp(3.0) / (std::exp(1.0) + std::exp(2.0) +
                                                                  2 * std::exp(3.0))));
  EXPECT_FLOAT_EQ(weights[2], 0.25f);
}

TEST_P(MoeRouteContract, ComparesGroupsByBiasedScoresAndWeighsByScores) {
  const auto backend = forced_backend("moe_route", GetParam());
  // Groups of two: the best single expert is in none of the two best groups.
  const std::vector<float> logits = {4, -9, 2, 2, 1, 1, -3, -3};
  const std::vector<float> bias = {0, 0, 0, 0.25f, 0, 0, 0, 0};
  std::vector<std::int32_t> chosen(2, -1);
  std::vector<float> weights(2);
  MoeRouteArgs args;
  args.logits = logits.data();
  args.rows = 1;
  args.experts = 8;
  args.top_k = 2;
  args.score = RouteScore::kSigmoid;
  args.scale = 3;
  args.choice_bias = bias;
  args.groups = 4;
  args.top_groups = 2;
  args.chosen = chosen.data();
  args.weights = weights.data();
  backend->run(args);
  EXPECT_EQ(chosen, (std::vector<std::int32_t>{3, 2}));
  for (const float w : weights) EXPECT_FLOAT_EQ(w, 1.5f);
  args.renormalize = false;
  backend->run(args);
  for (const float w : weights) EXPECT_FLOAT_EQ(w, static_cast<float>(3 / (1 + std::exp(-2.0))));
}

INSTANTIATE_TEST_SUITE_P(Impls, MoeRouteContract, ::testing::ValuesIn(usable_impls("moe_route")),
                         name_of);

class GatherScatterContract : public Impls {};
TEST_P(GatherScatterContract, GatherCopiesRows) {
  const auto backend = forced_backend("gather_rows", GetParam());
  const std::vector<float> x = random_floats(4 * 9, 81);
  const std::vector<std::int32_t> index = {3, 0, 3};
  GuardedOutput out(3, 9, 9);
  backend->run(GatherRowsArgs{.x = x.data(), .index = index, .cols = 9, .out = out.data()});
  EXPECT_EQ(out.damage(), "");
  for (std::int64_t i = 0; i < 27; ++i) {
    EXPECT_EQ(out.at(i / 9, i % 9),
              x[static_cast<std::size_t>(index[static_cast<std::size_t>(i / 9)] * 9 + i % 9)]);
  }
}
TEST_P(GatherScatterContract, ScatterAddsWeightedRows) {
  const auto backend = forced_backend("scatter_add_rows", GetParam());
  const std::vector<float> x = random_floats(2 * 9, 82);
  const std::vector<std::int32_t> index = {2, 0};
  const std::vector<float> weights = {0.5f, -2};
  GuardedOutput y(3, 9, 9);
  std::fill(y.data(), y.data() + 27, 1.0f);
  backend->run(ScatterAddRowsArgs{
      .x = x.data(), .index = index, .weights = weights, .cols = 9, .y = y.data()});
  EXPECT_EQ(y.damage(), "");
  for (std::int64_t c = 0; c < 9; ++c) {
    const auto at = static_cast<std::size_t>(c);
    EXPECT_FLOAT_EQ(y.at(0, c), 1 - 2 * x[9 + at]);
    EXPECT_EQ(y.at(1, c), 1.0f);
    EXPECT_FLOAT_EQ(y.at(2, c), 1 + 0.5f * x[at]);
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, GatherScatterContract,
                         ::testing::ValuesIn(usable_impls("gather_rows")), name_of);

// ---- argmax

class ArgmaxContract : public Impls {};
TEST_P(ArgmaxContract, TakesTheFirstOfTheLargest) {
  const auto backend = forced_backend("argmax", GetParam());
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr std::int64_t kCases = 9;
  for (const std::int64_t cols : {std::int64_t{1}, std::int64_t{3}, std::int64_t{517},
                                  std::int64_t{4100}, std::int64_t{128256}}) {
    std::vector<float> x = random_floats(kCases * cols, 91);
    std::vector<std::int32_t> expected;
    const auto set = [&](std::int64_t row, std::int64_t col, float value) {
      x[static_cast<std::size_t>(row * cols + col)] = value;
    };
    const auto fill = [&](std::int64_t row, float value) {
      for (std::int64_t c = 0; c < cols; ++c) set(row, c, value);
    };
    set(1, cols / 2, 1e30f);
    set(2, cols - 1, 1e30f);
    fill(3, -7);  // equals
    fill(4, -0.0f);
    set(4, cols - 1, 0.0f);  // equal to what comes before
    set(5, cols / 3, std::nanf(""));
    set(6, cols - 1, kInfinity);
    fill(7, -kInfinity);
    fill(8, -kInfinity);
    set(8, cols / 2, -3e38f);
    for (std::int64_t r = 0; r < kCases; ++r) {
      const auto row = x.begin() + r * cols;
      expected.push_back(static_cast<std::int32_t>(std::max_element(row, row + cols) - row));
    }
    expected[5] = expected[6] = expected[7] = -1;
    GuardedOutput chosen(kCases, 1, 1);  // of the size of a float
    backend->run(ArgmaxArgs{.x = x.data(),
                            .rows = kCases,
                            .cols = cols,
                            .chosen = reinterpret_cast<std::int32_t*>(chosen.data())});
    EXPECT_EQ(chosen.damage(), "");
    for (std::int64_t r = 0; r < kCases; ++r) {
      EXPECT_EQ(std::bit_cast<std::int32_t>(chosen.at(r, 0)), expected[static_cast<std::size_t>(r)])
          << cols << " columns, row " << r;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, ArgmaxContract, ::testing::ValuesIn(usable_impls("argmax")),
                         name_of);

// ---- transpose, column_sums

constexpr std::pair<std::int64_t, std::int64_t> kMatrices[] = {{1, 1},   {1, 70},   {70, 1},
                                                               {33, 31}, {64, 128}, {2051, 37}};

class TransposeContract : public Impls {};
TEST_P(TransposeContract, TurnsRowsIntoColumns) {
  const auto backend = forced_backend("transpose", GetParam());
  for (const auto& [rows, cols] : kMatrices) {
    const std::vector<float> x = random_floats(rows * cols, 95);
    GuardedOutput y(cols, rows, rows);
    backend->run(TransposeArgs{.x = x.data(), .rows = rows, .cols = cols, .y = y.data()});
    EXPECT_EQ(y.damage(), "");
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) {
        ASSERT_EQ(y.at(c, r), x[static_cast<std::size_t>(r * cols + c)]) << rows << " x " << cols;
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Impls, TransposeContract, ::testing::ValuesIn(usable_impls("transpose")),
                         name_of);

class ColumnSumsContract : public Impls {};
TEST_P(ColumnSumsContract, AddsToWhatIsThere) {
  const auto backend = forced_backend("column_sums", GetParam());
  for (const auto& [rows, cols] : kMatrices) {
    const std::vector<float> x = random_floats(rows * cols, 96, 3);
    const auto size = static_cast<std::size_t>(cols);
    std::vector<float> largest(size, 2.0f);
    std::vector<double> squares(size, 5.0), magnitudes(size, 7.0);
    backend->run(ColumnSumsArgs{.x = x.data(),
                                .rows = rows,
                                .cols = cols,
                                .max_abs = largest.data(),
                                .sum_squares = squares.data(),
                                .sum_abs = magnitudes.data()});
    const double unit = std::numeric_limits<double>::epsilon() * static_cast<double>(rows + 2);
    for (std::size_t j = 0; j < size; ++j) {
      float most = 2;
      double square = 5, magnitude = 7;
      for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
        const float value = x[r * size + j];
        most = std::max(most, std::abs(value));
        square += static_cast<double>(value) * static_cast<double>(value);
        magnitude += static_cast<double>(std::abs(value));
      }
      ASSERT_EQ(largest[j], most);
      ASSERT_NEAR(squares[j], square, unit * square) << rows << " x " << cols << ", column " << j;
      ASSERT_NEAR(magnitudes[j], magnitude, unit * magnitude);
    }
  }
}
TEST_P(ColumnSumsContract, WhatIsNotFiniteShows) {
  const auto backend = forced_backend("column_sums", GetParam());
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {1, std::nanf(""), 1, 1, 1, -infinity};
  std::vector<float> largest(3);
  std::vector<double> squares(3), magnitudes(3);
  backend->run(ColumnSumsArgs{.x = x.data(),
                              .rows = 2,
                              .cols = 3,
                              .max_abs = largest.data(),
                              .sum_squares = squares.data(),
                              .sum_abs = magnitudes.data()});
  EXPECT_EQ(squares[0], 2);
  EXPECT_FALSE(std::isfinite(squares[1]));
  EXPECT_FALSE(std::isfinite(squares[2]));
}
INSTANTIATE_TEST_SUITE_P(Impls, ColumnSumsContract,
                         ::testing::ValuesIn(usable_impls("column_sums")), name_of);

class ScaleContract : public Impls {};
TEST_P(ScaleContract, MultipliesColumnsThenDividesRows) {
  const auto backend = forced_backend("scale", GetParam());
  for (const auto& [rows, cols] : kMatrices) {
    const std::vector<float> x = random_floats(rows * cols, 97);
    const std::vector<float> factors = random_floats(cols, 98);
    std::vector<float> divisors = random_floats(rows, 99);
    for (float& divisor : divisors) divisor += std::copysign(0.1f, divisor);
    for (const bool multiplies : {false, true}) {
      for (const bool divides : {false, true}) {
        GuardedOutput y(rows, cols, cols);
        backend->run(ScaleArgs{.x = x.data(),
                               .rows = rows,
                               .cols = cols,
                               .factors = multiplies ? factors.data() : nullptr,
                               .divisors = divides ? divisors.data() : nullptr,
                               .y = y.data()});
        EXPECT_EQ(y.damage(), "");
        for (std::int64_t r = 0; r < rows; ++r) {
          for (std::int64_t c = 0; c < cols; ++c) {
            float want = x[static_cast<std::size_t>(r * cols + c)];
            if (multiplies) want *= factors[static_cast<std::size_t>(c)];
            if (divides) want /= divisors[static_cast<std::size_t>(r)];
            ASSERT_EQ(y.at(r, c), want) << rows << " x " << cols << ": " << r << ", " << c;
          }
        }
      }
    }
  }
}
TEST_P(ScaleContract, MayWriteWhereItReads) {
  const auto backend = forced_backend("scale", GetParam());
  std::vector<float> x = {1, 2, 3, 4, 5, 6};
  const std::vector<float> factors = {2, 4, 8};
  const std::vector<float> divisors = {1, 2};
  backend->run(ScaleArgs{.x = x.data(),
                         .rows = 2,
                         .cols = 3,
                         .factors = factors.data(),
                         .divisors = divisors.data(),
                         .y = x.data()});
  EXPECT_EQ(x, (std::vector<float>{2, 8, 24, 4, 10, 24}));
}
INSTANTIATE_TEST_SUITE_P(Impls, ScaleContract, ::testing::ValuesIn(usable_impls("scale")), name_of);

}  // namespace
}  // namespace nibble::test
