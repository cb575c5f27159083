// Stochastic rounding: right in the mean, the same for a seed, and never further than a neighbour.
#include "formats/stochastic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "formats/affine.h"
#include "formats/registry.h"
#include "formats/table_format.h"
#include "support/test_data.h"

namespace nibble {
namespace {

TEST(Stochastic, DrawsFollowSplitMix64) {
  // The first outputs of the generator seeded with 0, by its reference implementation.
  EXPECT_EQ(uniform_draw(0, 0), static_cast<double>(0xe220a8397b1dcdafu >> 11) * 0x1p-53);
  EXPECT_EQ(uniform_draw(0, 1), static_cast<double>(0x6e789e6aa1b965f4u >> 11) * 0x1p-53);
  EXPECT_EQ(uniform_draw(0, 2), static_cast<double>(0x06c45d188009454fu >> 11) * 0x1p-53);
}

// Of n roundings to two neighbours a step apart the mean lies within 5 sigma, sigma being at most
// half a step over the root of n.
TEST(Stochastic, CodesOfFloatsAreRightInTheMean) {
  for (const char* name : {"fp8_e4m3", "fp4_e2m1", "nf4", "fp6_e3m2", "fp8_e3m4b2.5", "ternary"}) {
    const FormatPtr format = parse_weight_format(std::string(name) + "_tensor");
    const CodeTable& table = table_of(*format);
    for (const float part : {0.0f, -0.0f, 0.013f, -0.3f, 0.61f, 0.999f, -1.0f}) {
      const float x = part * table.max();
      constexpr int kDraws = 20000;
      double sum = 0, least = 1e30, most = -1e30;
      for (int i = 0; i < kDraws; ++i) {
        const auto draw = uniform_draw(5, static_cast<std::uint64_t>(i));
        const double value = double{table.value(stochastic_code(table.view(), x, draw))};
        sum += value;
        least = std::min(least, value);
        most = std::max(most, value);
      }
      EXPECT_LE(least, x) << name;
      EXPECT_GE(most, x) << name;
      const double bound = 5 * (most - least) / 2 / std::sqrt(kDraws) + 1e-12;
      EXPECT_NEAR(sum / kDraws, double{x}, bound) << name << " " << x;
    }
  }
}

// The casts of any float, against the search in a table of the same codes, and of 16 bits in the
// mean.
TEST(Stochastic, CastsAreThoseOfTables) {
  for (const char* name : {"fp8_e4m3", "fp8_e5m2", "fp8_e4m3fnuz", "fp4_e2m1", "fp8_e3m4b2.5"}) {
    const FloatBits type = parse_weight_format(name)->descriptor().element.float_bits;
    const FloatCast cast(type);
    const CodeTable table = table_of(type);
    for (int i = 0; i < 4000; ++i) {
      const auto at = static_cast<std::uint64_t>(i);
      const auto x = static_cast<float>((uniform_draw(1, at) - 0.5) * 2.5 * double{table.max()});
      const double draw = uniform_draw(2, at);
      EXPECT_EQ(cast.stochastic_code(x, draw), stochastic_code(table.view(), x, draw))
          << name << " " << x;
    }
  }
}

TEST(Stochastic, SixteenBitsAreRightInTheMean) {
  for (const char* name : {"f16", "bf16"}) {
    constexpr std::int64_t kDraws = 20000;
    const FormatPtr format = parse_weight_format(name);
    for (const float x : {1.0009f, -3.00001f, 0.2f, 1e-6f, -0.0f, 1024.0f}) {
      const std::vector<float> w(kDraws, x);
      Codec codec;
      codec.rounding = Rounding::kStochastic;
      codec.seed = 9;
      const QuantTensor stored = format->encode(w.data(), 100, kDraws / 100, codec);
      std::vector<float> values(w.size());
      decode_all(stored, values.data());
      const auto [least, most] = std::ranges::minmax(values);
      EXPECT_LE(least, x) << name;
      EXPECT_GE(most, x) << name;
      double sum = 0;
      for (const float v : values) sum += double{v};
      const double bound = 5 * (double{most} - double{least}) / 2 / std::sqrt(kDraws) + 1e-12;
      EXPECT_NEAR(sum / kDraws, double{x}, bound) << name << " " << x;
    }
    Codec codec;
    codec.rounding = Rounding::kStochastic;
    const float beyond = 3.4e38f;
    EXPECT_ERROR(format->encode(&beyond, 1, 1, codec), ErrorKind::kUnsupported, "beyond");
  }
}

TEST(Stochastic, ValuesKeepExactlyAndBeyondTheLastSaturate) {
  const CodeTable& e4m3 = e4m3_table();
  const TableView table = e4m3.view();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const double draw : {0.0, 0.5, 1 - 0x1p-53}) {
    for (int code = 0; code < 256; ++code) {
      if (std::isnan(e4m3.value(code))) continue;
      EXPECT_EQ(stochastic_code(table, e4m3.value(code), draw), code);
    }
    EXPECT_EQ(stochastic_code(table, 1e9f, draw), 0x7e);
    EXPECT_EQ(stochastic_code(table, -kInfinity, draw), 0xfe);
  }
  EXPECT_EQ(stochastic_code(table, 1.0625f, 0.49), 0x39);  // between 1 and 1.125
  EXPECT_EQ(stochastic_code(table, 1.0625f, 0.5), 0x38);
}

std::vector<float> ramp(std::int64_t count) {
  std::vector<float> w;
  for (std::int64_t i = 0; i < count; ++i) {
    w.push_back(std::sin(static_cast<float>(i) * 0.37f) * 0.1f);
  }
  return w;
}

std::vector<float> round_trip(const Format& format, const std::vector<float>& w, std::int64_t rows,
                              const Codec& codec) {
  std::vector<float> out(w.size());
  decode_all(format.encode(w.data(), rows, static_cast<std::int64_t>(w.size()) / rows, codec),
             out.data());
  return out;
}

// The mean of many matrices comes to the weights as one over the root of their number.
TEST(Stochastic, MatricesAreRightInTheMean) {
  const std::int64_t rows = 4, cols = 256;
  const std::vector<float> w = ramp(rows * cols);
  for (const char* name : {"int4_g128_asym", "int8_channel_sym", "int2_g64_sym_strict",
                           "fp4_e2m1_g32", "nf4_g64", "int4_b2x64_asym"}) {
    const FormatPtr format = parse_weight_format(name);
    constexpr int kSeeds = 400;
    std::vector<double> sums(w.size());
    double worst_single = 0;
    for (int seed = 0; seed < kSeeds; ++seed) {
      const auto out =
          round_trip(*format, w, rows,
                     {.rounding = Rounding::kStochastic, .seed = static_cast<std::uint64_t>(seed)});
      for (std::size_t i = 0; i < w.size(); ++i) {
        sums[i] += double{out[i]};
        worst_single = std::max(worst_single, std::abs(double{out[i]} - double{w[i]}));
      }
    }
    // Of neighbours one is at most worst_single away, and so is the other on the other side; 6
    // sigma over 1,024 elements. The ends of asymmetric ranges, moved by the rounding of zero,
    // saturate.
    const double bound = 6 * worst_single / std::sqrt(kSeeds);
    for (std::size_t i = 0; i < w.size(); ++i) {
      if (std::abs(w[i]) > 0.09f) continue;
      EXPECT_NEAR(sums[i] / kSeeds, double{w[i]}, bound) << name << " element " << i;
    }
  }
}

TEST(Stochastic, ASeedGivesTheSameBitsOnAnyNumberOfThreads) {
  ThreadPool pool(3);
  const std::int64_t rows = 64, cols = 512;
  const std::vector<float> w = ramp(rows * cols);
  for (const char* name : {"int4_g128_asym", "nvfp4", "fp8", "nf4_dq"}) {
    const FormatPtr format = parse_model_format(name).weights;
    Codec one{.rounding = Rounding::kStochastic, .seed = 3};
    Codec many = one;
    many.pool = &pool;
    Codec other = one;
    other.seed = 4;
    EXPECT_EQ(round_trip(*format, w, rows, one), round_trip(*format, w, rows, many)) << name;
    EXPECT_NE(round_trip(*format, w, rows, one), round_trip(*format, w, rows, other)) << name;
    EXPECT_NE(round_trip(*format, w, rows, one), round_trip(*format, w, rows, {})) << name;
  }
}

}  // namespace
}  // namespace nibble
