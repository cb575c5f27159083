#include "formats/activation_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "base/json.h"
#include "formats/registry.h"
#include "support/test_data.h"

namespace nibble::test {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::FloatNear;

std::vector<float> rounded(std::string_view name, const std::vector<float>& x,
                           std::int64_t rows = 1) {
  const auto cols = static_cast<std::int64_t>(x.size()) / rows;
  std::vector<float> y(x.size());
  parse_activation_format(name)->round(x.data(), cols, rows, cols, y.data(), cols);
  return y;
}

TEST(ActivationFormat, NamesRoundTripAndSpellOutDefaults) {
  for (const char* name :
       {"int8_token", "int4_asym_token", "int8_tensor", "int8_tensor_static",
        "int8_asym_tensor_static", "int8_channel_static", "fp8_e4m3_channel_static",
        "fp8_e4m3_token", "fp8_e5m2_g128", "fp4_e2m1_g32", "nf4_g64", "int8_token_o6",
        "int6_token_o2.5", "int8_g32_sf16", "ggml"}) {
    EXPECT_EQ(parse_activation_format(name)->name(), name);
  }
  EXPECT_EQ(parse_activation_format("int8")->name(), "int8_token");
  EXPECT_EQ(parse_activation_format("fp4_e2m1:token")->name(), "fp4_e2m1_token");
  EXPECT_EQ(parse_activation_format("int8_sym_token_dynamic")->name(), "int8_token");
  EXPECT_EQ(parse_activation_format("bf16"), nullptr);
}

TEST(ActivationFormat, RefusesWhatIsNone) {
  EXPECT_ERROR(parse_activation_format("int8_tokn"), ErrorKind::kUsage, "did you mean int8_token");
  for (const char* text : {"", "int8_", "token", "int8_token_token", "int8_g", "int8_o6_o6",
                           "int8_o0", "int8_onan", "fp8_token", "fp9_e4m3", "int8_chanel"}) {
    EXPECT_ERROR(parse_activation_format(text), ErrorKind::kUsage, "unknown");
  }
  for (const char* text : {"int9_token", "int1", "int8_token_static", "int8_g0", "fp8_e4m3_asym",
                           "int8_tensor_o6", "int8_asym_o6", "int8_oinf", "int8_channel",
                           "int8_token_sf16", "int8_asym_g32_sf16", "fp8_e4m3_g32_sf16"}) {
    EXPECT_ERROR(parse_activation_format(text), ErrorKind::kUnsupported, "activation format");
  }
}

TEST(ActivationFormat, PartOfAModelFormat) {
  const ModelFormat format = parse_model_format("w=int4_g128,a=fp8_e4m3:token,e=int8:channel_sym");
  EXPECT_EQ(format.activations->name(), "fp8_e4m3_token");
  EXPECT_EQ(format.embeddings->name(), "int8_channel_sym");
  EXPECT_EQ(parse_model_format("w8a8_int8").activations->name(), "int8_token");
  EXPECT_EQ(parse_model_format("llm.int8").activations->name(), "int8_token_o6");
  EXPECT_EQ(parse_model_format("w4a16_g128").activations, nullptr);
}

// Worked by hand: scale 1 / 127 of 127, ties to even.
TEST(ActivationFormat, IntegersByToken) {
  EXPECT_THAT(rounded("int8", {127, -0.5f, 0.5f, 1.5f, 2.5f, -126.6f}),
              ElementsAre(127, 0, 0, 2, 2, -127));
  EXPECT_THAT(rounded("int4_asym", {-3, 12, 0.4f, 5.6f}), ElementsAre(-3, 12, 0, 6));
  EXPECT_THAT(rounded("int4_asym", {30, 15}), ElementsAre(30, 16));  // the range holds 0
  // Each row has its own scale; a tensor has one.
  EXPECT_THAT(rounded("int8_token", {127, 0.4f, 12.7f, 0.04f}, 2), ElementsAre(127, 0, 12.7f, 0));
  EXPECT_THAT(rounded("int8_tensor", {127, 0.4f, 12.7f, 0.04f}, 2), ElementsAre(127, 0, 13, 0));
}

TEST(ActivationFormat, GroupsAndAShorterTail) {
  EXPECT_THAT(rounded("int4_g2", {7, 0.6f, 70, 6, 3.5f}), ElementsAre(7, 1, 70, 10, 3.5f));
}

// 1/127 is 0x2010 of F16, 1032 * 2^-17; codes are found by the scale of F32.
TEST(ActivationFormat, ScalesOf16Bits) {
  constexpr float kScale = 1032 * 0x1p-17f;
  EXPECT_THAT(rounded("int8_g2_sf16", {1, 0.5f, 127, -0.6f}),
              ElementsAre(127 * kScale, 64 * kScale, 127, -1));
  EXPECT_THAT(rounded("int8_g2_sf16", {1e-7f, -1e-7f}), Each(0.0f));  // no scale so small
}

// E2M1 reaches to 6: scale 1. Ties to the even code.
TEST(ActivationFormat, SmallFloats) {
  EXPECT_THAT(rounded("fp4_e2m1", {6, 5, 3.6f, -2.5f, 0.25f, 0.26f}),
              ElementsAre(6, 4, 4, -2, 0, 0.5f));
  EXPECT_THAT(rounded("fp8_e4m3", {448, 17, 19, 0.001f}), ElementsAre(448, 16, 20, 0.001953125f));
}

TEST(ActivationFormat, StaticScalesSaturate) {
  const ActivationFormatPtr open = parse_activation_format("int8_tensor_static");
  EXPECT_FALSE(open->is_complete());
  const ActivationFormatPtr format = open->with_scales({{0.5f, 0}});
  EXPECT_TRUE(format->is_complete());
  const std::vector<float> x = {100, -100, 0.26f, NAN};
  std::vector<float> y(4);
  format->round(x.data(), 4, 1, 4, y.data(), 4);
  EXPECT_THAT(std::vector<float>(y.begin(), y.begin() + 3), ElementsAre(63.5f, -64, 0.5f));
  EXPECT_TRUE(std::isnan(y[3]));
  EXPECT_ERROR(open->with_scales({{0, 0}}), ErrorKind::kCorrupt, "scale");
  EXPECT_ERROR(open->with_scales({{INFINITY, 0}}), ErrorKind::kCorrupt, "scale");
  EXPECT_ERROR(open->with_scales({{1, 3}}), ErrorKind::kCorrupt, "zero point");
}

// q + zero in 0 ... 15, worked by hand.
TEST(ActivationFormat, StaticZeroPointsSaturate) {
  const ActivationFormatPtr open = parse_activation_format("int4_asym_tensor_static");
  const ActivationFormatPtr format = open->with_scales({{0.5f, 3}});
  const std::vector<float> x = {100, -100, 0.26f, -1.25f, 0};
  std::vector<float> y(x.size());
  format->round(x.data(), 5, 1, 5, y.data(), 5);
  EXPECT_THAT(y, ElementsAre(6, -1.5f, 0.5f, -1, 0));
  EXPECT_ERROR(open->with_scales({{0.5f, 16}}), ErrorKind::kCorrupt, "zero point");
}

TEST(ActivationFormat, StaticScalesByChannel) {
  const ActivationFormatPtr format =
      parse_activation_format("int8_channel_static")->with_scales({{0.5f, 0}, {2, 0}, {1, 0}});
  EXPECT_EQ(format->fixed().size(), 3u);
  const std::vector<float> x = {100, 3.2f, 0.4f, -0.3f, -500, NAN};
  std::vector<float> y(x.size());
  format->round(x.data(), 3, 2, 3, y.data(), 3);
  EXPECT_TRUE(std::isnan(y[5]));
  y.pop_back();
  EXPECT_THAT(y, ElementsAre(63.5f, 4, 0, -0.5f, -256));
  const ActivationFormatPtr fp4 =
      parse_activation_format("fp4_e2m1_channel_static")->with_scales({{1, 0}, {10, 0}});
  fp4->round(x.data(), 2, 1, 2, y.data(), 2);
  EXPECT_THAT(std::vector<float>(y.begin(), y.begin() + 2), ElementsAre(6, 5));
}

TEST(ActivationFormat, ZerosTinyValuesAndWhatIsNoNumber) {
  for (const char* name : {"int8", "int8_asym", "fp8_e4m3", "nf4", "int8_g2", "int8_o6"}) {
    EXPECT_THAT(rounded(name, {0, -0.0f, 0, 0}), Each(0.0f)) << name;
    EXPECT_THAT(rounded(name, {1e-44f, 0, -1e-44f, 0}), Each(0.0f)) << name;
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      EXPECT_TRUE(std::isnan(rounded(name, {1, bad, 2, 3})[0])) << name;
    }
  }
  // Differences of such values are no float32, the rounded values are.
  const float large = std::numeric_limits<float>::max() / 2;
  const float step = large / 127;
  EXPECT_THAT(rounded("int8_asym", {-large, large}),
              ElementsAre(FloatNear(-large, step), FloatNear(large, step)));
}

// What is rounded already stays: scale * q is a fixed point.
TEST(ActivationFormat, RoundsOnce) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> x(96);
  for (float& v : x) v = normal(random);
  for (const char* name : {"int8_token", "fp8_e4m3_token", "fp4_e2m1_g32", "int4_g16"}) {
    const std::vector<float> once = rounded(name, x, 2);
    const std::vector<float> twice = rounded(name, once, 2);
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_FLOAT_EQ(once[i], twice[i]) << name;
  }
}

// tests/golden/llm_int8/make.py: bitsandbytes' own answer.
TEST(ActivationFormat, OutliersAsInBitsandbytes) {
  const Json golden =
      read_json_file((source_dir() / "tests/golden/llm_int8/llm_int8.json").string());
  const auto x = golden.at("x").get<std::vector<std::vector<float>>>();
  const auto codes = golden.at("codes").get<std::vector<std::vector<int>>>();
  const auto absmax = golden.at("row_absmax").get<std::vector<float>>();
  const auto cols = static_cast<std::int64_t>(x[0].size());
  std::vector<float> flat;
  for (const auto& row : x) flat.insert(flat.end(), row.begin(), row.end());
  const ActivationFormatPtr format = parse_activation_format("int8_token_o6");
  const auto rows = static_cast<std::int64_t>(x.size());
  const ActivationCall call = format->observe(flat.data(), cols, rows, cols);
  EXPECT_EQ(call.outliers, golden.at("outlier_columns").get<std::vector<std::int32_t>>());
  std::vector<float> y(flat.size());
  format->round(flat.data(), cols, rows, cols, y.data(), cols);
  for (std::size_t row = 0; row < x.size(); ++row) {
    for (std::size_t col = 0; col < x[row].size(); ++col) {
      const bool outlier =
          std::ranges::find(call.outliers, static_cast<std::int32_t>(col)) != call.outliers.end();
      const float expected =
          outlier ? x[row][col] : absmax[row] / 127 * static_cast<float>(codes[row][col]);
      EXPECT_EQ(y[row * x[row].size() + col], expected) << row << ", " << col;
    }
  }
}

// Columns that are given stay as they are and count for no scale.
TEST(ActivationFormat, OutliersOfTheWeight) {
  const ActivationFormatPtr open = parse_activation_format("int8_token_ow");
  EXPECT_EQ(open->name(), "int8_token_ow");
  EXPECT_FALSE(open->is_complete());
  const ActivationFormatPtr format = open->with_columns({1, 3});
  EXPECT_TRUE(format->is_complete());
  const std::vector<float> x = {1, 1000, -0.5f, 0.3333f, 0.25f};
  std::vector<float> y(x.size());
  format->round(x.data(), 5, 1, 5, y.data(), 5);
  const auto rounded = [](float v) { return (1.0f / 127) * std::nearbyint(v * 127.0f); };
  EXPECT_EQ(y, (std::vector<float>{1, 1000, rounded(-0.5f), 0.3333f, rounded(0.25f)}));
  std::vector<float> in_place = x;
  format->round(in_place.data(), 5, 1, 5, in_place.data(), 5);
  EXPECT_EQ(in_place, y);
  EXPECT_ERROR(parse_activation_format("int8_tensor_ow"), ErrorKind::kUnsupported, "by token");
  EXPECT_ERROR(parse_activation_format("lloyd4"), ErrorKind::kUnsupported, "with weights");
  for (const char* text : {"trellis4_token", "trellis64_token", "quantile4_token"}) {
    EXPECT_ERROR(parse_activation_format(text), ErrorKind::kUnsupported, "with weights");
  }
}

}  // namespace
}  // namespace nibble::test
