#include "formats/float_bits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "base/file.h"
#include "base/half.h"
#include "base/json.h"
#include "formats/registry.h"
#include "support/test_data.h"

namespace nibble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Every small float that has a name, and some that only a descriptor can say.
constexpr const char* kTypes[] = {
    "fp8_e4m3",     "fp8_e4m3ieee", "fp8_e4m3fnuz",    "fp8_e4m3all",      "fp8_e5m2",
    "fp8_e5m2fnuz", "fp8_e5m2all",  "fp8_e3m4",        "fp8_e3m4ieee",     "fp8_e2m5",
    "fp8_e2m5ieee", "fp6_e2m3",     "fp6_e3m2",        "fp6_e4m1",         "fp4_e2m1",
    "fp4_e1m2",     "fp4_e3m0",     "fp8_e4m3fnuzb11", "fp8_e4m3allb7.25", "fp5_e2m2",
    "fp7_e3m3",     "fp3_e1m1",     "fp2_e1m0",        "fp8_e6m1fn",       "fp8_e1m6"};

FloatBits type_of(const std::string& name) {
  return parse_weight_format(name)->descriptor().element.float_bits;
}

Json goldens() {
  return Json::parse(read_text_file(test::source_dir() / "tests/golden/formats/small_floats.json"));
}

float golden_value(const Json& value) {
  if (value.is_number()) return value.get<float>();
  if (value == "nan") return kNan;
  return value == "inf" ? kInfinity : -kInfinity;
}

FloatBits golden_type(const std::string& name) {
  const bool is_fp6 = name == "e2m3" || name == "e3m2";
  return type_of((is_fp6 ? "fp6_" : name == "e2m1" ? "fp4_" : "fp8_") + name);
}

// Maxima, least normals and subnormals, counts: the tables of the OCP, AMD and IEEE-style types.
TEST(FloatBits, HasTheKnownRanges) {
  struct Row {
    const char* name;
    float max, min_subnormal;
    std::size_t distinct;
  };
  const Row rows[] = {
      {"fp8_e2m5", 7.875f, 0x1p-5f, 255}, {"fp8_e2m5ieee", 3.9375f, 0x1p-5f, 191},
      {"fp8_e3m4", 31, 0x1p-6f, 255},     {"fp8_e3m4ieee", 15.5f, 0x1p-6f, 223},
      {"fp8_e4m3", 448, 0x1p-9f, 253},    {"fp8_e4m3ieee", 240, 0x1p-9f, 239},
      {"fp8_e4m3all", 480, 0x1p-9f, 255}, {"fp8_e4m3fnuz", 240, 0x1p-10f, 255},
      {"fp8_e5m2", 57344, 0x1p-16f, 247}, {"fp8_e5m2fnuz", 57344, 0x1p-17f, 255},
      {"fp6_e2m3", 7.5f, 0.125f, 63},     {"fp6_e3m2", 28, 0.0625f, 63},
      {"fp6_e4m1", 384, 0x1p-7f, 63},     {"fp4_e2m1", 6, 0.5f, 15},
      {"fp4_e1m2", 1.75f, 0.25f, 15},     {"fp4_e3m0", 16, 0.25f, 15},
  };
  for (const Row& row : rows) {
    const CodeTable table = table_of(type_of(row.name));
    std::vector<float> values;
    for (const float v : table.values()) {
      if (std::isfinite(v)) values.push_back(v + 0.0f);
    }
    std::ranges::sort(values);
    values.erase(std::ranges::unique(values).begin(), values.end());
    EXPECT_EQ(values.size(), row.distinct) << row.name;
    EXPECT_EQ(values.back(), row.max) << row.name;
    EXPECT_EQ(*std::ranges::upper_bound(values, 0.0f), row.min_subnormal) << row.name;
  }
}

TEST(FloatBits, HasTheFourBitGrids) {
  const auto magnitudes = [](const char* name) {
    const CodeTable table = table_of(type_of(name));
    return std::vector<float>(table.values().begin(), table.values().begin() + 8);
  };
  EXPECT_EQ(magnitudes("fp4_e2m1"), (std::vector<float>{0, 0.5f, 1, 1.5f, 2, 3, 4, 6}));
  EXPECT_EQ(magnitudes("fp4_e1m2"),
            (std::vector<float>{0, 0.25f, 0.5f, 0.75f, 1, 1.25f, 1.5f, 1.75f}));
  EXPECT_EQ(magnitudes("fp4_e3m0"), (std::vector<float>{0, 0.25f, 0.5f, 1, 2, 4, 8, 16}));
}

// Saturating casts of the same numbers to five types; the ties are marked by their inputs.
TEST(FloatBits, CastsTheConformanceVectors) {
  constexpr int kCount = 12;
  const float x[kCount] = {1,   0.1f, 0.3f, 1.0f / 3, 17,       19,
                           100, 300,  464,  60000,    0x1p-10f, 1.5f * 0x1p-10f};
  const std::pair<const char*, std::vector<int>> rows[] = {
      {"fp8_e4m3", {0x38, 0x1d, 0x2a, 0x2b, 0x58, 0x5a, 0x6c, 0x79, 0x7e, 0x7e, 0x00, 0x01}},
      {"fp8_e5m2", {0x3c, 0x2e, 0x35, 0x35, 0x4c, 0x4d, 0x56, 0x5d, 0x5f, 0x7b, 0x14, 0x16}},
      {"fp6_e2m3", {0x08, 0x01, 0x02, 0x03, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0, 0}},
      {"fp6_e3m2", {0x0c, 0x02, 0x05, 0x05, 0x1c, 0x1d, 0x1f, 0x1f, 0x1f, 0x1f, 0, 0}},
      {"fp4_e2m1", {0x2, 0x0, 0x1, 0x1, 0x7, 0x7, 0x7, 0x7, 0x7, 0x7, 0, 0}},
  };
  for (const auto& [name, codes] : rows) {
    const FloatCast cast(type_of(name));
    const int sign = 1 << (code_bits(type_of(name)) - 1);
    for (int i = 0; i < kCount; ++i) {
      EXPECT_EQ(cast.code(x[i]), codes[static_cast<std::size_t>(i)]) << name << " " << x[i];
      EXPECT_EQ(cast.code(-x[i]), codes[static_cast<std::size_t>(i)] | sign)
          << name << " " << -x[i];
    }
  }
  const FloatCast fp4(type_of("fp4_e2m1"));
  const std::pair<float, float> ties[] = {{0.25f, 0}, {0.75f, 1}, {1.25f, 1}, {1.75f, 2},
                                          {2.5f, 2},  {3.5f, 4},  {5, 4},     {7, 6}};
  for (const auto& [value, rounded] : ties) EXPECT_EQ(fp4.value(fp4.code(value)), rounded);
}

TEST(FloatBits, HasTheValuesOfMlDtypes) {
  const Json all = goldens();
  for (const auto& [name, golden] : all.items()) {
    const FloatCast cast(golden_type(name));
    const Json& values = golden.at("values");
    ASSERT_EQ(values.size(), std::size_t{1} << code_bits(golden_type(name))) << name;
    for (int code = 0; code < static_cast<int>(values.size()); ++code) {
      const float wanted = golden_value(values[static_cast<std::size_t>(code)]);
      if (std::isnan(wanted)) {
        EXPECT_TRUE(std::isnan(cast.value(code))) << name << " " << code;
      } else {
        EXPECT_EQ(cast.value(code), wanted) << name << " " << code;
      }
    }
  }
}

TEST(FloatBits, CastsAsMlDtypes) {
  const Json all = goldens();
  for (const auto& [name, golden] : all.items()) {
    const FloatCast cast(golden_type(name));
    const auto inputs = golden.at("inputs").get<std::vector<std::uint32_t>>();
    const auto codes = golden.at("codes").get<std::vector<int>>();
    ASSERT_GT(inputs.size(), 40u);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const float x = std::bit_cast<float>(inputs[i]);
      const int code = cast.code(x, Overflow::kReport);
      // Any NaN is as good as another.
      const bool both_nan = std::isnan(cast.value(code)) && std::isnan(cast.value(codes[i]));
      EXPECT_TRUE(both_nan || code == codes[i]) << name << " " << x << " " << code;
    }
  }
}

// tests/golden/formats/make.py: casts of numpy and ml_dtypes; half.h has them in its own
// arithmetic.
TEST(FloatBits, CastsToSixteenBitsAsNumpy) {
  const Json all =
      Json::parse(read_text_file(test::source_dir() / "tests/golden/formats/halves.json"));
  for (const char* name : {"f16", "bf16"}) {
    const bool is_f16 = name[0] == 'f';
    const FloatCast cast(is_f16 ? FloatBits{5, 10, 15, FloatKind::kIeee}
                                : FloatBits{8, 7, 127, FloatKind::kIeee});
    const auto inputs = all.at(name).at("inputs").get<std::vector<std::uint32_t>>();
    const auto codes = all.at(name).at("codes").get<std::vector<int>>();
    ASSERT_GT(inputs.size(), 1000u);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const float x = std::bit_cast<float>(inputs[i]);
      EXPECT_EQ(cast.code(x, Overflow::kReport), codes[i]) << name << " " << x;
      EXPECT_EQ(is_f16 ? to_f16(x).bits : to_bf16(x).bits, codes[i]) << name << " " << x;
      const int saturated = cast.code(x);
      EXPECT_EQ(saturated, std::isinf(cast.value(codes[i])) ? codes[i] - 1 : codes[i]) << x;
    }
  }
}

// Every code of 16 bits has the value that half.h gives it, and every float's cast is its.
TEST(FloatBits, IsTheDefinitionOfHalves) {
  for (const bool is_f16 : {true, false}) {
    const FloatCast cast(is_f16 ? FloatBits{5, 10, 15, FloatKind::kIeee}
                                : FloatBits{8, 7, 127, FloatKind::kIeee});
    for (int code = 0; code < 1 << 16; ++code) {
      const auto bits = static_cast<std::uint16_t>(code);
      const float value = is_f16 ? to_float(f16{bits}) : to_float(bf16{bits});
      if (std::isnan(value)) {
        ASSERT_TRUE(std::isnan(cast.value(code))) << code;
        continue;
      }
      ASSERT_EQ(cast.value(code), value) << code;
      ASSERT_EQ(cast.code(value, Overflow::kReport), code) << code;
    }
    for (std::uint32_t i = 0; i < 200000; ++i) {
      const float x = std::bit_cast<float>(i * 2654435761u);
      if (std::isnan(x)) continue;
      ASSERT_EQ(cast.code(x, Overflow::kReport), is_f16 ? to_f16(x).bits : to_bf16(x).bits) << x;
    }
  }
}

TEST(FloatBits, HalvesHaveNamesAmongFloats) {
  EXPECT_EQ(parse_weight_format("fp16_e5m10")->name(), "f16");
  EXPECT_EQ(parse_weight_format("fp16_e8m7")->name(), "bf16");
  EXPECT_EQ(parse_model_format("w=nf4,e=fp16_e8m7,a=int8").embeddings->name(), "bf16");
  EXPECT_EQ(name_of({5, 10, 15, FloatKind::kIeee}), "e5m10");
  EXPECT_EQ(name_of({8, 7, 127, FloatKind::kIeee}), "e8m7");
}

// Twice as much in eight bits: the search in a table, which encoders have, gives the same codes.
TEST(FloatBits, CastsAreThoseOfTables) {
  for (const char* name : kTypes) {
    const FloatCast cast(type_of(name));
    const CodeTable table = table_of(type_of(name));
    for (std::uint32_t i = 0; i < 20000; ++i) {
      const float x = std::bit_cast<float>(i * 2654435761u);
      if (std::isnan(x)) continue;
      ASSERT_EQ(cast.code(x), table.nearest(x)) << name << " " << x;
    }
  }
}

TEST(FloatBits, EveryCodeRoundTrips) {
  for (const char* name : kTypes) {
    const FloatCast cast(type_of(name));
    const int count = 1 << code_bits(type_of(name));
    for (int code = 0; code < count; ++code) {
      const float value = cast.value(code);
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(cast.value(cast.code(value)))) << name << " " << code;
      } else {
        EXPECT_EQ(cast.code(value, Overflow::kReport), code) << name << " " << code;
      }
    }
  }
}

TEST(FloatBits, DefinesWhatLiesBeyond) {
  const FloatCast fn(type_of("fp8_e4m3"));
  EXPECT_EQ(fn.code(464, Overflow::kReport), 0x7e);
  EXPECT_EQ(fn.code(std::nextafter(464.0f, kInfinity), Overflow::kReport), 0x7f);
  EXPECT_EQ(fn.code(-kInfinity, Overflow::kReport), 0xff);
  EXPECT_EQ(fn.code(kInfinity), 0x7e);
  EXPECT_EQ(fn.code(kNan), 0x7f);
  const FloatCast ieee(type_of("fp8_e5m2"));
  EXPECT_EQ(ieee.code(std::nextafter(61440.0f, 0.0f), Overflow::kReport), 0x7b);
  EXPECT_EQ(ieee.code(61440, Overflow::kReport), 0x7c);
  EXPECT_EQ(ieee.code(-61440, Overflow::kReport), 0xfc);
  EXPECT_EQ(ieee.code(-kInfinity), 0xfb);
  EXPECT_EQ(ieee.code(-0.0f), 0x80);
  const FloatCast fnuz(type_of("fp8_e4m3fnuz"));
  EXPECT_EQ(fnuz.code(-0.0f), 0);
  EXPECT_EQ(fnuz.code(-1e-30f), 0);
  EXPECT_EQ(fnuz.code(kNan), 0x80);
  EXPECT_EQ(fnuz.code(1e9f, Overflow::kReport), 0x80);
  const FloatCast all(type_of("fp4_e2m1"));
  EXPECT_EQ(all.code(kInfinity, Overflow::kReport), 7);
  EXPECT_ERROR(all.code(kNan), ErrorKind::kUnsupported, "NaN");
}

TEST(FloatBits, BiasIsAScale) {
  FloatBits type = type_of("fp8_e4m3all");
  const FloatCast whole(type);
  type.bias = 7.25;
  const FloatCast shifted(type);
  for (int code = 0; code < 256; ++code) {
    EXPECT_EQ(shifted.value(code),
              static_cast<float>(double{whole.value(code)} * std::exp2(-0.25)));
  }
  // Largest value c and bias b: c = (2 - 2^-m) 2^(2^e - 1 - b).
  EXPECT_FLOAT_EQ(shifted.value(shifted.code(kInfinity)),
                  static_cast<float>((2 - 0x1p-3) * std::exp2(16 - 1 - 7.25)));
}

TEST(FloatBits, WithoutASignClampsAtZero) {
  const FloatCast cast({4, 4, 7, FloatKind::kAllFinite, false});
  EXPECT_EQ(cast.code(-3), 0);
  EXPECT_EQ(cast.value(cast.code(1.0625f)), 1.0625f);
  EXPECT_EQ(cast.code(kInfinity), 0xff);
}

TEST(FloatBits, RefusesWhatDoesNotFit) {
  EXPECT_ERROR(FloatCast({8, 8, 127, FloatKind::kFn, true}), ErrorKind::kUnsupported, "17 bits");
  EXPECT_EQ(why_not({5, 3, 15, FloatKind::kFn, true}), "9 bits: 2 to 8 are supported");
  EXPECT_ERROR(FloatCast({8, 7, 120, FloatKind::kIeee, true}), ErrorKind::kUnsupported, "bias");
  EXPECT_ERROR(parse_weight_format("fp16_e6m9"), ErrorKind::kUnsupported, "16 bits");
  EXPECT_ERROR(FloatCast({0, 3, 1, FloatKind::kAllFinite, true}), ErrorKind::kUnsupported,
               "0 exponent");
  EXPECT_ERROR(FloatCast({4, 3, 500, FloatKind::kFn, true}), ErrorKind::kUnsupported, "bias");
  EXPECT_ERROR(FloatCast({4, 3, static_cast<double>(kNan), FloatKind::kFn, true}),
               ErrorKind::kUnsupported, "bias");
  EXPECT_ERROR(FloatCast({1, 0, 1, FloatKind::kIeee, true}), ErrorKind::kUnsupported, "finite");
}

}  // namespace
}  // namespace nibble
