#include "formats/table_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "formats/registry.h"
#include "support/test_data.h"

namespace nibble {
namespace {

using testing::ElementsAre;
using testing::FloatNear;
using testing::Pointwise;

std::vector<float> values_of(Codebook codebook) {
  const CodeTable table = table_of(codebook);
  return {table.values().begin(), table.values().end()};
}

TEST(Codebook, Nf4IsThatOfBitsandbytes) {
  const std::vector<float> published = {
      -1,         -0.6961928f, -0.5250731f, -0.3949175f, -0.2844414f, -0.1847734f, -0.091050f, 0,
      0.0795803f, 0.1609302f,  0.2461123f,  0.3379152f,  0.4407098f,  0.5626170f,  0.7229568f, 1};
  EXPECT_THAT(values_of(Codebook::kNf4), Pointwise(FloatNear(6e-8f), published));
}

// The bounds between its codes, midpoints of neighbours, to seven decimals.
TEST(Codebook, Nf4Rounds) {
  const CodeTable table = table_of(Codebook::kNf4);
  const float bounds[] = {-0.8480964f, -0.6106330f, -0.4599953f, -0.3396794f, -0.2346074f,
                          -0.1379117f, -0.0455250f, 0.0397902f,  0.1202553f,  0.2035212f,
                          0.2920137f,  0.3893125f,  0.5016634f,  0.6427868f,  0.8614784f};
  for (int code = 0; code < 15; ++code) {
    EXPECT_EQ(table.nearest(bounds[code] - 2e-7f), code);
    EXPECT_EQ(table.nearest(bounds[code] + 2e-7f), code + 1);
  }
}

double normal_cdf(double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }

// The construction, run backwards: the probabilities of the levels stand at equal steps.
TEST(Codebook, NormalFloatsAreQuantiles) {
  for (const auto& [codebook, bits] :
       {std::pair{Codebook::kNf2, 2}, std::pair{Codebook::kNf3, 3}, std::pair{Codebook::kNf4, 4}}) {
    const double top = 1 - (1 / (std::exp2(bits) - 1) + 1 / std::exp2(bits)) / 4;
    double low = 0, high = 8;  // Phi^-1(top), by bisection
    for (int i = 0; i < 60; ++i) {
      (normal_cdf((low + high) / 2) < top ? low : high) = (low + high) / 2;
    }
    const std::vector<float> values = values_of(codebook);
    const auto half = static_cast<double>(values.size() / 2);
    ASSERT_EQ(values[values.size() / 2 - 1], 0);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double at = static_cast<double>(i) - (half - 1);
      const double steps = at > 0 ? half : half - 1;
      const double wanted = 0.5 + at / steps * (top - 0.5);
      EXPECT_NEAR(normal_cdf(double{values[i]} * low), wanted, 3e-7) << bits << " " << i;
    }
  }
}

TEST(Codebook, Bnb4HasAnOrderOfItsOwn) {
  const std::vector<float> values = values_of(Codebook::kBnb4);
  const float magnitudes[] = {0, 0.0052083f, 0.6666667f, 1, 0.3333333f, 0.5f, 0.1666667f, 0.25f};
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_NEAR(values[i], magnitudes[i], 5e-8);
    EXPECT_EQ(values[i + 8], -values[i]);
  }
  const CodeTable table = table_of(Codebook::kBnb4);
  const std::pair<float, int> bounds[] = {{0.0026042f, 0}, {0.0859375f, 1}, {0.2083333f, 6},
                                          {0.2916667f, 7}, {0.4166667f, 4}, {0.5833333f, 5},
                                          {0.8333333f, 2}};
  const int above[] = {1, 6, 7, 4, 5, 2, 3};
  for (std::size_t i = 0; i < std::size(bounds); ++i) {
    EXPECT_EQ(table.nearest(bounds[i].first - 1e-6f), bounds[i].second);
    EXPECT_EQ(table.nearest(bounds[i].first + 1e-6f), above[i]);
    EXPECT_EQ(table.nearest(-bounds[i].first - 1e-6f), above[i] | 8);
  }
}

TEST(Codebook, DynamicMapIsThatOfBitsandbytes) {
  const auto values = dynamic_map().values();
  ASSERT_EQ(values.size(), 256u);
  EXPECT_EQ(values.back(), 1);
  EXPECT_EQ(values[127], 0);
  EXPECT_FLOAT_EQ(values[128], 0.55e-6f);
  EXPECT_FLOAT_EQ(values[126], -0.55e-6f);
  EXPECT_FLOAT_EQ(values[129], 1e-5f * 0.325f);
  EXPECT_FLOAT_EQ(values[0], -(1 - 0.45f / 64));
  // Where its float32 is not the nearest to the formula.
  EXPECT_EQ(values[128], 0x1.27476ep-21f);
  EXPECT_EQ(values[140], 0x1.78d5p-11f);
  EXPECT_EQ(values[234], 0x1.6c6668p-1f);
}

// [1, 32] that holds one magnitude and its half.
std::vector<float> block_of(float absmax) {
  std::vector<float> w(32, absmax / 2);
  w[3] = -absmax;
  return w;
}

TEST(SharedExponent, FollowsItsRule) {
  const auto scale = [](const char* name, float absmax) {
    const std::vector<float> w = block_of(absmax);
    return table_scales_of(parse_weight_format(name)->encode(w.data(), 1, 32))[0];
  };
  // floor: E2M1 reaches to 6 = 1.5 * 2^2, so 2^(floor(log2 7) - 2) = 1 and 7 saturates.
  EXPECT_EQ(scale("mxfp4", 7), 1);
  EXPECT_EQ(scale("mxfp4_ceil", 7), 2);
  EXPECT_EQ(scale("mxfp4", 6), 1);
  EXPECT_EQ(scale("mxfp4_ceil", 6), 1);
  EXPECT_EQ(scale("fp8_e4m3_g32_se8m0", 500), 1);
  EXPECT_EQ(scale("mxfp8", 500), 2);
  EXPECT_EQ(scale("mxfp8_e5m2", 57344), 1);
  EXPECT_EQ(scale("mxfp6_e2m3", 7.9f), 1);
  EXPECT_EQ(scale("mxfp6_e3m2", 16), 1);
  EXPECT_EQ(scale("mxint8", 1.99f), 1);
  EXPECT_EQ(scale("mxint8", 2), 2);
  EXPECT_EQ(scale("mxfp4", 0), 1);
  // 8 is far from 6; 6.5 is nearer to 6 than the coarser grid is to the others.
  EXPECT_EQ(scale("fp4_e2m1_g32_se8m0_best", 7.9f), 2);
  EXPECT_EQ(scale("mxfp4", 0x1p-149f), 0x1p-127f);
  EXPECT_EQ(scale("mxfp4", 3e38f), 0x1p125f);
}

TEST(FourOverSix, IsNeverWorseThanSixAlone) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> w(64 * 256);
  for (float& v : w) v = normal(random);
  const auto error = [&](const char* name) {
    const QuantTensor t = parse_weight_format(name)->encode(w.data(), 64, 256);
    std::vector<float> decoded(w.size());
    decode_all(t, decoded.data());
    double sum = 0;
    for (std::size_t i = 0; i < w.size(); ++i) sum += std::pow(double{w[i]} - decoded[i], 2);
    return sum;
  };
  EXPECT_LT(error("nvfp4"), 0.9 * error("nvfp4_plain"));
}

// log2(sigma / RMSE) of formats on normal, Laplace and Student-t (5) numbers, from an independent
// computation over 4 * 10^6 samples.
TEST(BitsOfAccuracy, AreTheKnownOnes) {
  constexpr std::int64_t kRows = 256, kCols = 4096;
  struct Row {
    const char* name;
    double normal, laplace;
  };
  const Row rows[] = {{"nf4_g32", 3.518, 3.424},
                      {"nf4", 3.443, 3.270},
                      {"nf4_g128", 3.387, 3.138},
                      {"bnb_fp4", 3.035, 2.731},
                      {"fp4_e2m1_g16_sf32", 3.409, 3.455},
                      {"fp4_e2m1_g128_sf32", 3.199, 3.047},
                      {"mxfp4", 3.121, 2.980},
                      {"mxfp4_ceil", 3.115, 2.920},
                      {"nvfp4_plain", 3.394, 3.432},
                      {"nvfp4", 3.524, 3.520},
                      {"fp4_e3m0_g32_sf32", 2.470, 2.578},
                      {"mxfp6_e2m3", 5.139, 5.030},
                      {"mxfp6_e3m2", 4.212, 4.189},
                      {"fp8_e4m3_g32_se8m0_floor", 5.091, 4.981},
                      {"mxfp8", 5.236, 5.239},
                      {"mxint8", 6.920, 6.643},
                      {"fp8_e4m3_g128", 5.282, 5.332}};
  std::mt19937 random(11);
  std::normal_distribution<float> gaussian;
  std::exponential_distribution<float> exponential;
  std::vector<float> normal(kRows * kCols), laplace(kRows * kCols), decoded(kRows * kCols);
  for (float& v : normal) v = gaussian(random);
  for (float& v : laplace) v = exponential(random) * (random() % 2 == 0 ? 1.0f : -1.0f);
  const auto bits = [&](const Format& format, const std::vector<float>& w) {
    decode_all(format.encode(w.data(), kRows, kCols), decoded.data());
    double error = 0, variance = 0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      error += std::pow(double{w[i]} - double{decoded[i]}, 2);
      variance += double{w[i]} * double{w[i]};
    }
    return std::log2(variance / error) / 2;
  };
  for (const Row& row : rows) {
    const FormatPtr format = parse_weight_format(row.name);
    EXPECT_NEAR(bits(*format, normal), row.normal, 0.02) << row.name;
    EXPECT_NEAR(bits(*format, laplace), row.laplace, 0.02) << row.name;
  }
}

TEST(DoubleQuantization, CostsLittleAccuracy) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> w(128 * 1024);
  for (float& v : w) v = normal(random);
  const auto scales = [&](const char* name) {
    return table_scales_of(parse_weight_format(name)->encode(w.data(), 128, 1024));
  };
  const std::vector<float> exact = scales("nf4"), stored = scales("nf4_dq");
  ASSERT_EQ(exact.size(), stored.size());
  for (std::size_t i = 0; i < exact.size(); ++i) EXPECT_NEAR(stored[i], exact[i], 0.01f * exact[i]);
  EXPECT_NEAR(bits_per_weight(*parse_weight_format("nf4_dq"), 4096, 4096), 4.127, 0.0005);
}

TEST(TableFormat, RefusesSchemesWithoutMeaning) {
  for (const char* name : {"nf4_g16_sf32_floor", "fp4_e2m1_g16_4over6", "nf4_g16_se4m3_4over6",
                           "fp8_e4m3_g32_se8m0_4over6", "fp4_e2m1_g16_se4m3_ceil"}) {
    EXPECT_ERROR(parse_weight_format(name), ErrorKind::kUnsupported, "format ");
  }
  for (const char* name :
       {"fp8_e5m3", "fp8_e4", "nf5", "int4_g32_se8m0", "nf4_sym", "fp8_e4m3q", "fp8_e4m3b",
        "fp8_e4m3bx", "int4_floor", "nf4_floor_ceil", "nf4_se8m0_sf32"}) {
    EXPECT_ERROR(parse_weight_format(name), ErrorKind::kUsage, "unknown");
  }
  EXPECT_ERROR(parse_weight_format("nf4q"), ErrorKind::kUsage, "did you mean nf4");
  EXPECT_ERROR(parse_weight_format("fp9_e5m3"), ErrorKind::kUnsupported, "9 bits");
  EXPECT_ERROR(parse_weight_format("fp8_e4m3b1000"), ErrorKind::kUnsupported, "bias");
  EXPECT_ERROR(parse_weight_format("mxfp3"), ErrorKind::kUsage, "mxfp4");
}

TEST(TableFormat, ShortNamesMeanTheSameInParts) {
  EXPECT_EQ(parse_model_format("w=nf4,e=fp8").weights->name(), "nf4_g64");
  EXPECT_EQ(parse_model_format("w=nf4,e=fp8").embeddings->name(), "fp8_e4m3_channel");
}

TEST(TableFormat, CodesOfNanDecodeToNan) {
  const std::vector<float> w(32, 1.0f);
  QuantTensor t = parse_weight_format("mxfp8")->encode(w.data(), 1, 32);
  t.planes[0].mutable_data<std::uint32_t>()[0] = 0x7f7f7f7f;
  std::vector<float> decoded(32);
  decode_all(t, decoded.data());
  EXPECT_TRUE(std::isnan(decoded[0]));
  EXPECT_EQ(decoded[4], 1);
  t.planes[1].mutable_data<std::uint8_t>()[0] = 255;
  decode_all(t, decoded.data());
  EXPECT_TRUE(std::isnan(decoded[4]));
}

// Signs times the mean magnitude: the least squares of one bit (XNOR-Net, equation 6).
TEST(Binary, IsTheSignTimesTheMean) {
  const std::vector<float> w = {0.5f, -1.5f, 0, -2, 0, 0, 0, 0};
  const QuantTensor t = parse_weight_format("binary_g4_sf32")->encode(w.data(), 1, 8);
  EXPECT_EQ(t.planes[0].data<std::uint32_t>()[0], 0b1010u);
  std::vector<float> out(8);
  decode_all(t, out.data());
  EXPECT_THAT(out, testing::ElementsAre(1, -1, 1, -1, 0, 0, 0, 0));
}

// round(w / mean |w|) within -1 ... 1 (BitNet b1.58, equations 1 to 3).
TEST(Ternary, RoundsByTheMean) {
  const std::vector<float> w = {0.5f, -1.5f, 0, -2, 0.51f, 0.49f, -0.7f, 0.3f};
  const QuantTensor t = parse_weight_format("ternary_g4_sf32")->encode(w.data(), 1, 8);
  EXPECT_EQ(table_scales_of(t), (std::vector<float>{1, 0.5f}));
  std::vector<float> out(8);
  decode_all(t, out.data());
  EXPECT_THAT(out, testing::ElementsAre(0, -1, 0, -1, 0.5f, 0.5f, -0.5f, 0.5f));
}

// One float32 for each 128 x 128 block, the last ones cut, as in DeepSeek-V3's checkpoints
// (`weight_scale_inv`, ceil(rows / 128) x ceil(columns / 128)).
TEST(Fp8Blocks, HaveAScaleForEachBlock) {
  std::vector<float> w(130 * 200, 1.0f);
  w[0] = 448;
  w[129 * 200 + 199] = -896;
  const QuantTensor t = parse_model_format("fp8_b128x128").weights->encode(w.data(), 130, 200);
  EXPECT_EQ(t.planes[1].shape(), (Shape{2, 2}));
  EXPECT_EQ(table_scales_of(t), (std::vector<float>{1, 1.0f / 448, 1.0f / 448, 2}));
  std::vector<float> out(w.size());
  decode_all(t, out.data());
  EXPECT_EQ(out, w);
}

}  // namespace
}  // namespace nibble
