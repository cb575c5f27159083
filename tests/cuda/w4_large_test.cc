// Products of many rows with packed 4-bit weights, against float64 on the same codes and scales.
#include "backends/cuda/kernels/w4_large.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "backends/cuda/kernels/round_rows.h"
#include "base/half.h"
#include "cuda/device_array.h"

namespace nibble::test {
namespace {

using cuda::RoundRows;
using cuda::W4Large;
using cuda::W4LargeTile;

constexpr double kMostError = 3e-3;  // relative, in the Frobenius norm
constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

struct Case {
  std::int64_t m, n, k, group;
  bool zeros = true;
  bool bf16_scales = false;
  bool positive = false;  // x
  bool bias = false;
  bool accumulate = false;
};

// A weight of random codes in the packed order, and its values.
struct Weight {
  std::vector<std::uint32_t> codes;
  std::vector<std::uint16_t> scales;
  std::vector<std::uint8_t> zeros;
  std::vector<double> values;  // [n, k]
};

// Where the order of backends/cuda/fragment_weight.h puts the code of (row, col): word and nibble.
struct CodePlace {
  std::size_t word;
  int nibble;
};

CodePlace code_place(std::int64_t row, std::int64_t col, std::int64_t k) {
  const std::int64_t block = row / 64 * (k / 64) + col / 64;
  const std::int64_t lane = row % 8 * 4 + col % 8 / 2;
  const std::int64_t word = ((block * 4 + row % 64 / 16) * 32 + lane) * 4 + col % 64 / 16;
  const auto reg = static_cast<int>(row % 16 / 8 + 2 * (col % 16 / 8));
  return {static_cast<std::size_t>(word), reg + 4 * static_cast<int>(col % 2)};
}

Weight random_weight(const Case& c, std::mt19937* random) {
  const std::int64_t groups = c.k / c.group;
  Weight w;
  w.codes.resize(static_cast<std::size_t>(c.n * c.k / 8));
  for (std::uint32_t& word : w.codes) word = static_cast<std::uint32_t>((*random)());
  std::uniform_real_distribution<float> scale(0.01f, 0.03f);
  for (std::int64_t i = 0; i < c.n * groups; ++i) {
    const float s = scale(*random);
    w.scales.push_back(c.bf16_scales ? to_bf16(s).bits : to_f16(s).bits);
    w.zeros.push_back(static_cast<std::uint8_t>(c.zeros ? (*random)() % 16 : 8));
  }
  w.values.resize(static_cast<std::size_t>(c.n * c.k));
  for (std::int64_t row = 0; row < c.n; ++row) {
    for (std::int64_t col = 0; col < c.k; ++col) {
      const auto at = static_cast<std::size_t>((row / 64 * groups + col / c.group) * 64 + row % 64);
      const CodePlace place = code_place(row, col, c.k);
      const auto code = static_cast<int>(w.codes[place.word] >> (4 * place.nibble) & 15);
      const float s = c.bf16_scales ? to_float(bf16{w.scales[at]}) : to_float(f16{w.scales[at]});
      w.values[static_cast<std::size_t>(row * c.k + col)] = (code - w.zeros[at]) * double{s};
    }
  }
  return w;
}

// Runs the case `repeats` times, each on a poisoned output, which must come out the same bit by
// bit; compares with float64.
void expect_right(const Case& c, const W4LargeTile& tile, int repeats = 1) {
  std::mt19937 random(static_cast<unsigned>(c.m * 7 + c.n + c.k));
  std::normal_distribution<float> normal;
  const Weight w = random_weight(c, &random);
  const std::int64_t x_stride = c.k + 4;
  const std::int64_t y_stride = c.n + 8;
  std::vector<float> x(static_cast<std::size_t>(c.m * x_stride));
  for (float& v : x) v = c.positive ? std::abs(normal(random)) : normal(random);
  std::vector<float> bias(static_cast<std::size_t>(c.n));
  for (float& v : bias) v = normal(random);
  const std::vector<float> before(static_cast<std::size_t>(c.m * y_stride),
                                  c.accumulate ? 0.5f : kPoison);

  DeviceArray<std::uint32_t> codes(w.codes);
  DeviceArray<std::uint16_t> scales(w.scales);
  DeviceArray<std::uint8_t> zeros(w.zeros);
  DeviceArray<float> device_x(x);
  DeviceArray<float> device_bias(bias);
  DeviceArray<std::uint16_t> rounded(static_cast<std::size_t>(c.m * c.k));
  const RoundRows round{device_x.data(), rounded.data(), c.m, c.k, x_stride};
  ASSERT_EQ(cudaSuccess, round_rows(round, nullptr));
  std::vector<float> y;
  for (int i = 0; i < repeats; ++i) {
    DeviceArray<float> device_y(before);
    const W4Large args{rounded.data(),
                       device_y.data(),
                       {codes.data(), scales.data(), c.zeros ? zeros.data() : nullptr, c.n, c.k,
                        c.k / c.group, c.bf16_scales},
                       c.bias ? device_bias.data() : nullptr,
                       c.m,
                       y_stride,
                       c.accumulate};
    ASSERT_EQ(cudaSuccess, w4_large(args, tile, nullptr));
    const std::vector<float> now = device_y.host();
    if (i > 0) {
      ASSERT_EQ(0, std::memcmp(y.data(), now.data(), y.size() * sizeof(float))) << i;
    }
    y = now;
  }

  double error = 0;
  double norm = 0;
  for (std::int64_t row = 0; row < c.m; ++row) {
    for (std::int64_t col = 0; col < c.n; ++col) {
      double sum =
          (c.bias ? double{bias[static_cast<std::size_t>(col)]} : 0) + (c.accumulate ? 0.5 : 0);
      for (std::int64_t k = 0; k < c.k; ++k) {
        sum += w.values[static_cast<std::size_t>(col * c.k + k)] *
               x[static_cast<std::size_t>(row * x_stride + k)];
      }
      const double difference = y[static_cast<std::size_t>(row * y_stride + col)] - sum;
      error += difference * difference;
      norm += sum * sum;
    }
    for (std::int64_t col = c.n; col < y_stride; ++col) {  // nothing beyond n
      const float v = y[static_cast<std::size_t>(row * y_stride + col)];
      EXPECT_TRUE(c.accumulate ? v == 0.5f : std::isnan(v)) << row << ' ' << col;
    }
  }
  EXPECT_LT(std::sqrt(error / norm), kMostError);
}

bool has_hopper() {
  cudaDeviceProp properties{};
  return cudaGetDeviceProperties(&properties, 0) == cudaSuccess && properties.major == 9;
}

#define NIBBLE_NEEDS_HOPPER() \
  NIBBLE_NEEDS_CUDA();        \
  if (!has_hopper()) GTEST_SKIP() << "no device of compute capability 9.0"

constexpr W4LargeTile kTiles[] = {{128, 256, 1, 1}, {128, 256, 2, 1}, {128, 256, 1, 2},
                                  {128, 256, 2, 2}, {128, 128, 1, 1}, {128, 128, 1, 2},
                                  {128, 64, 1, 1},  {128, 64, 1, 2},  {256, 64, 2, 1},
                                  {256, 64, 1, 2},  {128, 64, 1, 4},  {256, 64, 1, 4}};

TEST(W4Large, MatchesFloat64InEveryTileAndGroup) {
  NIBBLE_NEEDS_HOPPER();
  for (const W4LargeTile& tile : kTiles) {
    SCOPED_TRACE(testing::Message() << tile.rows << 'x' << tile.tokens << " share " << tile.share
                                    << " split " << tile.split);
    expect_right({67, 192, 704, 64, true, true}, tile);         // odd m, odd number of stages
    expect_right({64, 320, 640, 32, true, false, true}, tile);  // two groups a stage
    expect_right({130, 64, 512, 128, false, false, false, true}, tile);
    expect_right({1, 128, 256, 256, true, true, false, false, true}, tile);  // one group
  }
}

TEST(W4Large, KeepsItsAccuracyOverLongSumsOfPositiveInputs) {
  NIBBLE_NEEDS_HOPPER();
  for (const bool positive : {false, true}) {
    for (const W4LargeTile& tile : {kTiles[0], kTiles[7]}) {
      expect_right({16, 64, 22016, 128, true, false, positive}, tile);
    }
  }
}

TEST(W4Large, GivesTheSameBitsEveryTime) {
  NIBBLE_NEEDS_HOPPER();
  for (const W4LargeTile& tile : kTiles) expect_right({300, 448, 1024, 128}, tile, 100);
}

TEST(W4Large, ChoosesTilesThatItAccepts) {
  NIBBLE_NEEDS_HOPPER();
  for (const std::int64_t m : {1, 64, 129, 700}) {
    for (const std::int64_t n : {64, 1024, 4096}) {
      const W4LargeTile tile = cuda::choose_w4_large_tile(m, n, 128, 132);
      expect_right({m, n, 128, 64}, tile);
    }
  }
}

TEST(W4Large, RefusesSizesThatItCannotDo) {
  NIBBLE_NEEDS_HOPPER();
  DeviceArray<float> y(64 * 64);
  const W4LargeTile tile{128, 64, 1, 1};
  const auto run = [&](std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t groups) {
    return w4_large(
        {y.data(), y.data(), {y.data(), y.data(), nullptr, n, k, groups}, nullptr, m, n}, tile,
        nullptr);
  };
  EXPECT_EQ(cudaErrorInvalidValue, run(0, 64, 64, 1));
  EXPECT_EQ(cudaErrorInvalidValue, run(4, 96, 64, 1));
  EXPECT_EQ(cudaErrorInvalidValue, run(4, 64, 96, 1));
  EXPECT_EQ(cudaErrorInvalidValue, run(4, 64, 256, 16));
}

}  // namespace
}  // namespace nibble::test
