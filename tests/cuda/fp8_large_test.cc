// FP8 activations and weights: their rounding bit by bit, their products against float64 on the
// same operands.
#include "backends/cuda/kernels/fp8_large.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "backends/cuda/kernels/quantize_fp8.h"
#include "backends/cuda/kernels/w4_to_fp8.h"
#include "base/half.h"
#include "cuda/device_array.h"

namespace nibble::test {
namespace {

using cuda::Fp8Large;
using cuda::Fp8LargeTile;
using cuda::QuantizeFp8;
using cuda::ScaleType;

constexpr double kMostError = 3e-3;  // relative, in the Frobenius norm
constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

bool has_hopper() {
  cudaDeviceProp properties{};
  return cudaGetDeviceProperties(&properties, 0) == cudaSuccess && properties.major == 9;
}

#define NIBBLE_NEEDS_HOPPER() \
  NIBBLE_NEEDS_CUDA();        \
  if (!has_hopper()) GTEST_SKIP() << "no device of compute capability 9.0"

// OCP 8-bit floating point, E4M3: bias 7, no infinities, NaN is s.1111.111.
float e4m3_value(std::uint8_t bits) {
  const int exponent = bits >> 3 & 15;
  const int mantissa = bits & 7;
  if ((bits & 127) == 127) return kPoison;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (bits & 128) != 0 ? -magnitude : magnitude;
}

// |x - value(bits)| is the least of all E4M3 numbers'.
bool is_nearest(float x, std::uint8_t bits) {
  float least = std::numeric_limits<float>::infinity();
  for (int b = 0; b < 256; ++b) {
    const float v = e4m3_value(static_cast<std::uint8_t>(b));
    if (!std::isnan(v)) least = std::min(least, std::abs(v - x));
  }
  return std::abs(e4m3_value(bits) - x) == least;
}

TEST(QuantizeFp8, RoundsToTheNearestOfEachRowsScale) {
  NIBBLE_NEEDS_CUDA();
  constexpr std::int64_t kStride = 14000;
  for (const std::int64_t cols : {16, 128, 4112, 13312}) {  // the last does not fit in registers
    std::mt19937 random(static_cast<unsigned>(cols));
    std::normal_distribution<float> normal;
    std::vector<float> x(5 * kStride);
    const float factors[5] = {1, 1e-20f, 1e20f, 0, 1};
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = normal(random) * factors[i / kStride];
    x[4 * kStride + 3] = kPoison;
    DeviceArray<float> device_x(x);
    DeviceArray<std::uint8_t> device_y(static_cast<std::size_t>(5 * cols));
    DeviceArray<float> device_scales(5);
    device_y.fill(0xff);
    ASSERT_EQ(cudaSuccess, cuda::quantize_fp8({device_x.data(), device_y.data(),
                                               device_scales.data(), 5, cols, kStride},
                                              nullptr));
    const std::vector<std::uint8_t> y = device_y.host();
    const std::vector<float> scales = device_scales.host();
    for (std::int64_t row = 0; row < 5; ++row) {
      float largest = 0;
      for (std::int64_t i = 0; i < cols; ++i) {
        largest = std::fmax(largest, std::abs(x[static_cast<std::size_t>(row * kStride + i)]));
      }
      EXPECT_FLOAT_EQ(largest / 448, scales[static_cast<std::size_t>(row)]);
      const float factor = largest > 0 ? 448 / largest : 0;
      for (std::int64_t i = 0; i < cols; ++i) {
        const float v = x[static_cast<std::size_t>(row * kStride + i)];
        const std::uint8_t bits = y[static_cast<std::size_t>(row * cols + i)];
        ASSERT_TRUE(std::isnan(v) ? std::isnan(e4m3_value(bits)) : is_nearest(v * factor, bits))
            << row << ' ' << i << ' ' << v;
      }
    }
  }
}

// Weights whose E4M3 codes are the integers code - zero of random packed ones.
struct Case {
  std::int64_t m, n, k, groups;
  bool zeros = true;
  ScaleType scale_type = ScaleType::kF32;
  bool positive = false;  // x
  bool bias = false;
  bool accumulate = false;
};

// Where the order of backends/cuda/w4_weight.h puts the code of (row, col).
int code_of(const std::vector<std::uint32_t>& codes, std::int64_t row, std::int64_t col,
            std::int64_t k) {
  const std::int64_t block = row / 64 * (k / 64) + col / 64;
  const std::int64_t lane = row % 8 * 4 + col % 8 / 2;
  const std::int64_t word = ((block * 4 + row % 64 / 16) * 32 + lane) * 4 + col % 64 / 16;
  const auto nibble = static_cast<int>(row % 16 / 8 + 2 * (col % 16 / 8) + 4 * (col % 2));
  return static_cast<int>(codes[static_cast<std::size_t>(word)] >> (4 * nibble) & 15);
}

struct Weight {
  std::vector<std::uint32_t> codes;  // packed
  std::vector<std::uint8_t> zeros;
  std::vector<float> scales;
  std::vector<std::uint8_t> scale_bytes;
  std::vector<int> integers;  // [n, k]
};

Weight random_weight(const Case& c, std::mt19937* random) {
  Weight w;
  w.codes.resize(static_cast<std::size_t>(c.n * c.k / 8));
  for (std::uint32_t& word : w.codes) word = static_cast<std::uint32_t>((*random)());
  std::uniform_real_distribution<float> uniform(0.01f, 0.03f);
  for (std::int64_t i = 0; i < c.n * c.groups; ++i) {
    w.zeros.push_back(static_cast<std::uint8_t>(c.zeros ? (*random)() % 16 : 8));
    const float s = uniform(*random);
    std::uint32_t bits = 0;
    switch (c.scale_type) {
      case ScaleType::kF32:
        std::memcpy(&bits, &s, 4);
        w.scales.push_back(s);
        break;
      case ScaleType::kF16:
        bits = to_f16(s).bits;
        w.scales.push_back(to_float(to_f16(s)));
        break;
      case ScaleType::kBf16:
        bits = to_bf16(s).bits;
        w.scales.push_back(to_float(to_bf16(s)));
        break;
    }
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&bits);
    w.scale_bytes.insert(w.scale_bytes.end(), bytes,
                         bytes + (c.scale_type == ScaleType::kF32 ? 4 : 2));
  }
  for (std::int64_t row = 0; row < c.n; ++row) {
    for (std::int64_t col = 0; col < c.k; ++col) {
      const std::int64_t group = col / (c.k / c.groups);
      const auto at = static_cast<std::size_t>((row / 64 * c.groups + group) * 64 + row % 64);
      w.integers.push_back(code_of(w.codes, row, col, c.k) - w.zeros[at]);
    }
  }
  return w;
}

// Runs the case `repeats` times, each on a poisoned output, which must come out the same bit by
// bit; compares with float64.
void expect_right(const Case& c, const Fp8LargeTile& tile, int repeats = 1) {
  std::mt19937 random(static_cast<unsigned>(c.m * 7 + c.n + c.k + tile.tokens));
  std::normal_distribution<float> normal;
  const Weight w = random_weight(c, &random);
  const std::int64_t y_stride = c.n + 8;
  std::vector<float> x(static_cast<std::size_t>(c.m * c.k));
  for (float& v : x) v = c.positive ? std::abs(normal(random)) : normal(random);
  std::vector<float> bias(static_cast<std::size_t>(c.n));
  for (float& v : bias) v = normal(random);

  DeviceArray<std::uint32_t> packed(w.codes);
  DeviceArray<std::uint8_t> zeros(w.zeros);
  DeviceArray<std::uint8_t> scales(w.scale_bytes);
  DeviceArray<float> device_x(x);
  DeviceArray<float> device_bias(bias);
  DeviceArray<std::uint8_t> codes(static_cast<std::size_t>(c.n * c.k));
  DeviceArray<std::uint8_t> x_codes(x.size());
  DeviceArray<float> x_scales(static_cast<std::size_t>(c.m));
  ASSERT_EQ(cudaSuccess, cuda::w4_to_fp8({packed.data(), nullptr, c.zeros ? zeros.data() : nullptr,
                                          c.n, c.k, c.groups},
                                         codes.data(), nullptr));
  const std::vector<std::uint8_t> host_codes = codes.host();
  for (std::size_t i = 0; i < host_codes.size(); ++i) {
    ASSERT_EQ(static_cast<float>(w.integers[i]), e4m3_value(host_codes[i])) << i;
  }
  ASSERT_EQ(cudaSuccess,
            cuda::quantize_fp8({device_x.data(), x_codes.data(), x_scales.data(), c.m, c.k, c.k},
                               nullptr));
  std::vector<float> y;
  for (int i = 0; i < repeats; ++i) {
    DeviceArray<float> device_y(std::vector<float>(static_cast<std::size_t>(c.m * y_stride),
                                                   c.accumulate ? 0.5f : kPoison));
    const Fp8Large args{x_codes.data(),
                        x_scales.data(),
                        device_y.data(),
                        {codes.data(), scales.data(), c.scale_type, c.n, c.k, c.groups},
                        c.bias ? device_bias.data() : nullptr,
                        c.m,
                        y_stride,
                        c.accumulate};
    ASSERT_EQ(cudaSuccess, fp8_large(args, tile, nullptr));
    const std::vector<float> now = device_y.host();
    if (i > 0) {
      ASSERT_EQ(0, std::memcmp(y.data(), now.data(), y.size() * sizeof(float))) << i;
    }
    y = now;
  }

  const std::vector<std::uint8_t> host_x = x_codes.host();
  const std::vector<float> host_x_scales = x_scales.host();
  double error = 0;
  double norm = 0;
  for (std::int64_t row = 0; row < c.m; ++row) {
    std::vector<double> values(static_cast<std::size_t>(c.k));
    for (std::int64_t k = 0; k < c.k; ++k) {
      values[static_cast<std::size_t>(k)] =
          e4m3_value(host_x[static_cast<std::size_t>(row * c.k + k)]);
    }
    for (std::int64_t col = 0; col < c.n; ++col) {
      double sum = 0;
      for (std::int64_t k = 0; k < c.k; ++k) {
        const std::int64_t group = k / (c.k / c.groups);
        const auto at = static_cast<std::size_t>((col / 64 * c.groups + group) * 64 + col % 64);
        sum += w.integers[static_cast<std::size_t>(col * c.k + k)] * double{w.scales[at]} *
               values[static_cast<std::size_t>(k)];
      }
      sum = sum * host_x_scales[static_cast<std::size_t>(row)] +
            (c.bias ? double{bias[static_cast<std::size_t>(col)]} : 0) + (c.accumulate ? 0.5 : 0);
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

constexpr Fp8LargeTile kTiles[] = {{256, 1, 1}, {256, 2, 1}, {256, 1, 2},
                                   {128, 1, 1}, {128, 2, 1}, {128, 1, 2}};

TEST(Fp8Large, MatchesFloat64InEveryTile) {
  NIBBLE_NEEDS_HOPPER();
  for (const Fp8LargeTile& tile : kTiles) {
    SCOPED_TRACE(testing::Message()
                 << tile.tokens << " share " << tile.share << " split " << tile.split);
    expect_right({67, 192, 640, 5, true, ScaleType::kF16}, tile);
    expect_right({130, 320, 384, 3, true, ScaleType::kBf16, true, true}, tile);
    expect_right({1, 64, 256, 1, false, ScaleType::kF32, false, false, true}, tile);
  }
}

TEST(Fp8Large, KeepsItsAccuracyOverLongSumsOfPositiveInputs) {
  NIBBLE_NEEDS_HOPPER();
  for (const bool positive : {false, true}) {
    for (const std::int64_t groups : {1, 172}) {
      expect_right({16, 64, 22016, groups, true, ScaleType::kF32, positive}, kTiles[0]);
      expect_right({16, 64, 22016, groups, true, ScaleType::kF32, positive}, kTiles[5]);
    }
  }
}

TEST(Fp8Large, GivesTheSameBitsEveryTime) {
  NIBBLE_NEEDS_HOPPER();
  for (const Fp8LargeTile& tile : kTiles) expect_right({300, 448, 1024, 8}, tile, 100);
}

TEST(Fp8Large, ChoosesTilesThatItAccepts) {
  NIBBLE_NEEDS_HOPPER();
  for (const std::int64_t m : {1, 300}) {
    expect_right({m, 128, 256, 2}, cuda::choose_fp8_large_tile(m, 128, 256, 132));
  }
}

TEST(Fp8Large, RefusesSizesThatItCannotDo) {
  NIBBLE_NEEDS_HOPPER();
  DeviceArray<float> y(64 * 64);
  const auto run = [&](std::int64_t n, std::int64_t k, std::int64_t groups, int tokens) {
    return cuda::fp8_large({y.data(),
                            y.data(),
                            y.data(),
                            {y.data(), y.data(), ScaleType::kF32, n, k, groups},
                            nullptr,
                            4,
                            n},
                           {tokens, 1, 1}, nullptr);
  };
  EXPECT_EQ(cudaErrorInvalidValue, run(96, 128, 1, 128));
  EXPECT_EQ(cudaErrorInvalidValue, run(64, 192, 1, 128));
  EXPECT_EQ(cudaErrorInvalidValue, run(64, 512, 2, 128));
  EXPECT_EQ(cudaErrorInvalidValue, run(64, 128, 1, 64));
}

}  // namespace
}  // namespace nibble::test
