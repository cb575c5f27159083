// Products of packed weights with few rows of activations, and their expansion to bf16,
// against float64 on the host.
#include "backends/cuda/kernels/small_linear.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/fragment_weight.h"
#include "backends/cuda/kernels/decode_fragments.h"
#include "cuda/device_array.h"
#include "cuda/repeats.h"
#include "formats/registry.h"
#include "support/tolerance.h"

namespace nibble::test {
namespace {

using cuda::FragmentMatrix;
using cuda::SmallLinear;
using cuda::SmallLinearTile;

std::vector<float> normal_values(std::size_t count, unsigned seed, bool positive = false) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = positive ? std::abs(normal(random)) : normal(random);
  return values;
}

// A weight on the device and, decoded, on the host.
struct TestWeight {
  TestWeight(const std::string& format, std::int64_t rows, std::int64_t cols, unsigned seed) {
    const std::vector<float> w = normal_values(static_cast<std::size_t>(rows * cols), seed);
    const QuantTensor tensor = parse_weight_format(format)->encode(w.data(), rows, cols);
    decoded.resize(w.size());
    decode_all(tensor, decoded.data());
    ThreadPool pool(1);
    const cuda::FragmentWeight packed = cuda::pack_fragments(tensor, pool);
    codes = upload(packed.codes);
    scales = upload(packed.scales);
    matrix.codes = codes->data();
    matrix.scales = scales->data();
    if (!packed.zeros.empty()) {
      zeros = upload(packed.zeros);
      matrix.zeros = reinterpret_cast<const std::uint8_t*>(zeros->data());
    }
    matrix.rows = rows;
    matrix.cols = cols;
    matrix.groups = packed.groups;
    matrix.bits = packed.bits;
    matrix.bf16_scales = packed.scales.dtype() == DType::kBF16;
  }

  static std::unique_ptr<DeviceArray<std::byte>> upload(const Tensor& tensor) {
    const auto bytes = tensor.bytes();
    return std::make_unique<DeviceArray<std::byte>>(
        std::vector<std::byte>(bytes.begin(), bytes.end()));
  }

  std::vector<float> decoded;
  std::unique_ptr<DeviceArray<std::byte>> codes, scales, zeros;
  FragmentMatrix matrix;
};

// x W^T + bias in float64, x rounded to bf16.
std::vector<double> reference(const TestWeight& w, const std::vector<float>& x,
                              std::int64_t x_stride, int m, const std::vector<float>& bias) {
  std::vector<double> y;
  for (int t = 0; t < m; ++t) {
    for (std::int64_t n = 0; n < w.matrix.rows; ++n) {
      double sum = bias[static_cast<std::size_t>(n)];
      for (std::int64_t k = 0; k < w.matrix.cols; ++k) {
        const float value = to_float(to_bf16(x[static_cast<std::size_t>(t * x_stride + k)]));
        sum +=
            static_cast<double>(value) * w.decoded[static_cast<std::size_t>(n * w.matrix.cols + k)];
      }
      y.push_back(sum);
    }
  }
  return y;
}

struct Case {
  std::string format = "int4_g128_asym";
  std::int64_t rows = 192;
  std::int64_t cols = 1024;
  int m = 3;
  int parts = 1;
  bool pair = false;
  bool accumulate = false;
  bool positive = false;
  float outlier = 1;  // the first number of x is so many times as large
};

// The operands of a launch on the device, and what it should compute.
class Problem {
 public:
  explicit Problem(const Case& c)
      : case_(c),
        x_stride_(c.cols + 4),
        x_(normal_values(static_cast<std::size_t>(c.m * x_stride_), 1, c.positive)),
        device_x_(with_outlier(x_, c.outlier)) {
    for (int p = 0; p < c.parts; ++p) {
      // Parts of different height, but for pairs.
      const std::int64_t rows = c.rows + (c.pair ? 0 : 64 * p);
      weights_.push_back(
          std::make_unique<TestWeight>(c.format, rows, c.cols, static_cast<unsigned>(10 + p)));
      bias_.push_back(normal_values(static_cast<std::size_t>(rows), 20));
      device_bias_.push_back(std::make_unique<DeviceArray<float>>(bias_.back()));
      outputs_.push_back(
          std::make_unique<DeviceArray<float>>(static_cast<std::size_t>(c.m * stride_of(p))));
      auto& part = args_.parts[p];
      part = {weights_.back()->matrix, device_bias_.back()->data(), outputs_.back()->data(),
              stride_of(p)};
    }
    args_.x = device_x_.data();
    args_.x_stride = x_stride_;
    args_.m = c.m;
    args_.part_count = c.parts;
    args_.accumulate = c.accumulate;
    args_.silu_pair = c.pair;
  }

  SmallLinear& args() { return args_; }

  // All outputs, rows of stride_of(part), from poisoned memory (from ones where they are added to).
  std::vector<std::vector<float>> run(const SmallLinearTile& tile) {
    for (auto& output : outputs_) {
      const float start = case_.accumulate ? 1.0f : std::numeric_limits<float>::quiet_NaN();
      const std::vector<float> values(output->size(), start);
      EXPECT_EQ(cudaSuccess, cudaMemcpy(output->data(), values.data(), values.size() * 4,
                                        cudaMemcpyHostToDevice));
    }
    EXPECT_EQ(cudaSuccess, cuda::small_linear(args_, tile, nullptr));
    std::vector<std::vector<float>> results;
    for (const auto& output : outputs_) results.push_back(output->host());
    return results;
  }

  void expect_right(const SmallLinearTile& tile) {
    const auto results = run(tile);
    const auto expected_of = [&](int p) {
      const auto i = static_cast<std::size_t>(p);
      return reference(*weights_[i], x_, x_stride_, case_.m, bias_[i]);
    };
    for (int p = 0; p < (case_.pair ? 1 : case_.parts); ++p) {
      std::vector<double> expected = expected_of(p);
      if (case_.pair) {
        const std::vector<double> up = expected_of(1);
        for (std::size_t i = 0; i < up.size(); ++i) {
          expected[i] *= up[i] / (1 + std::exp(-expected[i]));
        }
      }
      expect_part_right(p, expected, results[static_cast<std::size_t>(p)]);
    }
  }

 private:
  static const std::vector<float>& with_outlier(std::vector<float>& x, float outlier) {
    x.front() *= outlier;
    return x;
  }

  std::int64_t stride_of(int p) const {
    return weights_[static_cast<std::size_t>(p)]->matrix.rows + 4;
  }

  void expect_part_right(int p, const std::vector<double>& expected,
                         const std::vector<float>& result) const {
    const std::int64_t rows = weights_[static_cast<std::size_t>(p)]->matrix.rows;
    const double start = case_.accumulate ? 1 : 0;
    double error = 0;
    double norm = 0;
    for (std::int64_t t = 0; t < case_.m; ++t) {
      for (std::int64_t n = 0; n < stride_of(p); ++n) {
        const float y = result[static_cast<std::size_t>(t * stride_of(p) + n)];
        if (n >= rows) {
          EXPECT_TRUE(case_.accumulate ? y == 1.0f : std::isnan(y)) << "beyond the rows: " << n;
          continue;
        }
        const double wanted = expected[static_cast<std::size_t>(t * rows + n)] + start;
        error += (y - wanted) * (y - wanted);
        norm += wanted * wanted;
      }
    }
    // Codes and products are exact; sums are float32, in the matrix units with truncation.
    const double bound =
        8 * std::sqrt(static_cast<double>(case_.cols)) * unit_roundoff(DType::kF32);
    EXPECT_LT(std::sqrt(error / norm), bound) << "part " << p;
  }

  Case case_;
  std::int64_t x_stride_;
  std::vector<float> x_;
  DeviceArray<float> device_x_;
  std::vector<std::unique_ptr<TestWeight>> weights_;
  std::vector<std::vector<float>> bias_;
  std::vector<std::unique_ptr<DeviceArray<float>>> device_bias_, outputs_;
  SmallLinear args_;
};

constexpr SmallLinearTile kTiles[] = {{1, 1, 2, 1}, {1, 1, 4, 2}, {1, 8, 2, 1}, {1, 8, 4, 2},
                                      {2, 2, 4, 2}, {3, 4, 2, 1}, {5, 1, 4, 2}, {8, 8, 2, 1}};

class SmallLinearFormatTest : public ::testing::TestWithParam<const char*> {};

TEST_P(SmallLinearFormatTest, EveryFormatAndCut) {
  NIBBLE_NEEDS_CUDA();
  for (const int m : {1, 5, 13, 32}) {
    Case c;
    c.format = GetParam();
    c.m = m;
    Problem problem(c);
    for (const SmallLinearTile& tile : kTiles) {
      SCOPED_TRACE(::testing::Message()
                   << "m " << m << " slices " << tile.slices << " splits " << tile.splits);
      problem.expect_right(tile);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, SmallLinearFormatTest,
                         ::testing::Values("int4_g32_asym", "int4_g32_sym", "int4_g64_asym_sbf16",
                                           "int4_g128_asym", "int4_g128_sym_sbf16",
                                           "int4_channel_asym", "int4_channel_sym", "int8_g32_asym",
                                           "int8_g64_sym", "int8_g64_asym_sbf16", "int8_g128_asym",
                                           "int8_g128_sym_sbf16", "int8_channel_asym",
                                           "int8_channel_sym"),
                         [](const auto& test) { return std::string(test.param); });

// What other tests than that of the formats run with.
class SmallLinearTest : public ::testing::TestWithParam<int> {
 protected:
  static std::string format(const std::string& rest) {
    return "int" + std::to_string(GetParam()) + "_" + rest;
  }
  static Case one() {
    Case c;
    c.format = format("g128_asym");
    return c;
  }
};

INSTANTIATE_TEST_SUITE_P(Bits, SmallLinearTest, ::testing::Values(4, 8));

TEST_P(SmallLinearTest, EveryNumberOfRows) {
  NIBBLE_NEEDS_CUDA();
  for (int m = 1; m <= cuda::kSmallLinearMaxRows; ++m) {
    Case c = one();
    c.m = m;
    Problem problem(c);
    SCOPED_TRACE(m);
    problem.expect_right(cuda::choose_small_linear_tile(problem.args()));
  }
}

TEST_P(SmallLinearTest, OddNumbersOfBlocksAlongK) {
  NIBBLE_NEEDS_CUDA();
  for (const std::int64_t cols : {64, 192, 1088}) {
    Case c = one();
    c.format = format("g64_asym");
    c.cols = cols;
    Problem problem(c);
    SCOPED_TRACE(cols);
    problem.expect_right({1, 2, 4, 2});
    if (cols > 128) problem.expect_right({2, 4, 2, 1});
  }
}

TEST_P(SmallLinearTest, SeveralPartsPairsAndSums) {
  NIBBLE_NEEDS_CUDA();
  for (const SmallLinearTile& tile : kTiles) {
    for (const int m : {2, 11}) {
      Case c = one();
      c.m = m;
      c.parts = 3;
      SCOPED_TRACE(::testing::Message() << "slices " << tile.slices << " m " << m);
      Problem(c).expect_right(tile);
      c.accumulate = true;
      Problem(c).expect_right(tile);
      if (GetParam() != 4) continue;
      c.parts = 2;
      c.accumulate = false;
      c.pair = true;
      Problem(c).expect_right(tile);
    }
  }
}

TEST_P(SmallLinearTest, LongSumsOfPositiveNumbers) {
  NIBBLE_NEEDS_CUDA();
  Case c = one();
  c.rows = 128;
  c.cols = 22016;
  c.m = 2;
  c.positive = true;
  Problem problem(c);
  problem.expect_right({1, 8, 2, 1});
  problem.expect_right({8, 1, 4, 2});
}

TEST_P(SmallLinearTest, WhatIsNotFiniteSpoilsItsRowAlone) {
  NIBBLE_NEEDS_CUDA();
  Case c = one();
  c.m = 2;
  Problem problem(c);
  const auto x_stride = static_cast<std::size_t>(problem.args().x_stride);
  std::vector<float> x = normal_values(2 * x_stride, 1);  // as the problem's
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    for (const SmallLinearTile& tile : kTiles) {
      const std::vector<float> finite = problem.run(tile).front();
      x[700] = bad;
      DeviceArray<float> device_x(x);
      const float* const before = std::exchange(problem.args().x, device_x.data());
      const std::vector<float> spoiled = problem.run(tile).front();
      problem.args().x = before;
      const auto stride = static_cast<std::size_t>(problem.args().parts[0].y_stride);
      for (std::size_t n = 0; n < static_cast<std::size_t>(c.rows); ++n) {
        ASSERT_TRUE(std::isnan(spoiled[n])) << n;
        ASSERT_EQ(spoiled[stride + n], finite[stride + n]) << n;
      }
    }
  }
}

// A chunk of x that one number makes coarse.
TEST_P(SmallLinearTest, NumbersBesideAMuchLargerOne) {
  NIBBLE_NEEDS_CUDA();
  Case c = one();
  c.m = 1;
  c.outlier = 1000;
  Problem(c).expect_right({2, 4, 2, 2});
}

TEST_P(SmallLinearTest, MoreOfXThanFitsAtATime) {
  NIBBLE_NEEDS_CUDA();
  Case c = one();
  c.rows = 64;
  c.cols = 22016;
  c.m = 27;
  Problem(c).expect_right({1, 1, 2, 1});
}

TEST_P(SmallLinearTest, TheSameBitsAtEveryRun) {
  NIBBLE_NEEDS_CUDA();
  Case c = one();
  c.rows = 2048;
  c.cols = 2048;
  c.m = 4;
  Problem problem(c);
  for (const bool dependent : {false, true}) {
    problem.args().dependent_launch = dependent;
    for (const SmallLinearTile& tile : kTiles) {
      const auto first = problem.run(tile);
      const std::size_t bytes = first[0].size() * sizeof(float);
      for (int i = 0; i < repeats(200); ++i) {
        const auto again = problem.run(tile);
        ASSERT_EQ(0, std::memcmp(first[0].data(), again[0].data(), bytes)) << "run " << i;
      }
    }
  }
}

TEST_P(SmallLinearTest, RefusesWhatItCannotRead) {
  NIBBLE_NEEDS_CUDA();
  Problem problem(one());
  const auto error_of = [&](const auto& change, SmallLinearTile tile = {}) {
    SmallLinear args = problem.args();
    change(args);
    return cuda::small_linear(args, tile, nullptr);
  };
  EXPECT_EQ(cudaErrorInvalidValue, error_of([](SmallLinear& a) { a.parts[0].w.bits = 3; }));
  const auto nothing = [](SmallLinear&) {};
  EXPECT_EQ(cudaErrorInvalidValue, error_of([](SmallLinear& a) { a.m = 0; }));
  EXPECT_EQ(cudaErrorInvalidValue, error_of([](SmallLinear& a) { a.m = 33; }));
  EXPECT_EQ(cudaErrorInvalidValue, error_of([](SmallLinear& a) { a.x_stride += 1; }));
  EXPECT_EQ(cudaErrorInvalidValue, error_of([](SmallLinear& a) { a.x += 1; }));
  EXPECT_EQ(cudaErrorInvalidValue, error_of([](SmallLinear& a) { a.part_count = 4; }));
  EXPECT_EQ(cudaErrorInvalidValue, error_of([](SmallLinear& a) { a.silu_pair = true; }));
  EXPECT_EQ(cudaErrorInvalidValue, error_of([](SmallLinear& a) { a.parts[0].w.groups = 64; }));
  EXPECT_EQ(cudaErrorInvalidValue, error_of(nothing, {9, 1, 2, 1}));
  EXPECT_EQ(cudaErrorInvalidValue, error_of(nothing, {1, 3, 2, 1}));
  EXPECT_EQ(cudaErrorInvalidValue, error_of(nothing, {1, 1, 3, 1}));
  EXPECT_EQ(cudaErrorInvalidValue, error_of(nothing, {1, 1, 2, 3}));
}

TEST(DecodeFragmentsTest, RoundsWhatTheFormatDecodes) {
  NIBBLE_NEEDS_CUDA();
  for (const char* format : {"int4_g32_asym", "int4_g64_sym", "int4_g128_asym_sbf16",
                             "int4_channel_asym", "int4_channel_sym", "int8_g32_asym",
                             "int8_g64_sym_sbf16", "int8_g128_asym", "int8_channel_asym"}) {
    const TestWeight w(format, 192, 384, 3);
    DeviceArray<bf16> out(w.decoded.size());
    out.fill(0xff);
    cuda::DecodeFragments args;
    args.w = w.matrix;
    args.out = out.data();
    ASSERT_EQ(cudaSuccess, cuda::decode_fragments(args, nullptr));
    const std::vector<bf16> values = out.host();
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(values[i].bits, to_bf16(w.decoded[i]).bits) << format << " " << i;
    }
  }
}

}  // namespace
}  // namespace nibble::test
