// Rows of a key/value cache against a brute-force search, and bytes written down by hand.
#include "formats/kv_type.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/error.h"
#include "support/test_data.h"

namespace nibble {
namespace {

std::vector<std::byte> encoded(KvType type, const std::vector<float>& values) {
  const auto count = static_cast<std::int64_t>(values.size());
  std::vector<std::byte> row(static_cast<std::size_t>(kv_row_bytes(type, count)));
  encode_kv_row(type, values.data(), count, row.data());
  return row;
}

std::vector<float> round_trip(KvType type, const std::vector<float>& values) {
  std::vector<float> back(values.size());
  decode_kv_row(type, encoded(type, values).data(), static_cast<std::int64_t>(values.size()),
                back.data());
  return back;
}

std::vector<float> random_row(std::int64_t count, unsigned seed, float mean, float spread) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(mean, spread);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = normal(random);
  return values;
}

TEST(KvType, NamesAndSizes) {
  for (const KvType type : kKvTypes) EXPECT_EQ(parse_kv_type(to_string(type)), type);
  EXPECT_EQ(parse_kv_type("auto"), std::nullopt);
  EXPECT_EQ(parse_kv_type("INT8"), std::nullopt);
  EXPECT_EQ(kv_row_bytes(KvType::kF32, 64), 256);
  EXPECT_EQ(kv_row_bytes(KvType::kBF16, 3), 6);
  EXPECT_EQ(kv_row_bytes(KvType::kInt8, 64), 72);
  EXPECT_EQ(kv_row_bytes(KvType::kInt4, 64), 40);
  EXPECT_EQ(kv_row_bytes(KvType::kInt4, 5), 11);
  EXPECT_EQ(kv_type_of(DType::kF16), KvType::kF16);
  EXPECT_ERROR(kv_type_of(DType::kI8), ErrorKind::kUnsupported, "I8");
}

TEST(KvFormat, Names) {
  for (const std::string& name : kv_format_names()) {
    EXPECT_EQ(to_string(*parse_kv_format(name)), name);
  }
  EXPECT_EQ(parse_kv_format("int4_hadamard"), KvFormat(KvType::kInt4, true));
  EXPECT_EQ(parse_kv_format("fp8"), KvFormat(KvType::kFp8));
  for (const char* none : {"bf16_hadamard", "hadamard", "int4_hadamard_hadamard", "int4_", ""}) {
    EXPECT_EQ(parse_kv_format(none), std::nullopt) << none;
  }
}

// Codes of e4m3, whose scale here is 2^-6: 448 times that is 7.
TEST(KvType, BytesOfFp8Rows) {
  const std::vector<float> values = {-7, 0.015625f, 0, -0.0f, 0.25f, 1e-5f};
  std::vector<std::byte> expected(14);
  const float numbers[] = {0.015625f, 0};
  std::memcpy(expected.data(), numbers, 8);
  const unsigned char codes[] = {0xfe, 0x38, 0x00, 0x80, 0x58, 0x00};
  std::memcpy(expected.data() + 8, codes, 6);
  EXPECT_EQ(encoded(KvType::kFp8, values), expected);
  EXPECT_EQ(kv_row_bytes(KvType::kFp8, 64), 72);
  // Zeros and what has no scale become zero.
  for (const float tiny : {0.0f, -0.0f, 1e-45f}) {
    EXPECT_EQ(round_trip(KvType::kFp8, {tiny, tiny}), (std::vector<float>{0, 0}));
  }
}

// Within a sixteenth of each value or half the least step, and never below what was cut off at 448.
TEST(KvType, Fp8KeepsEachValueToASixteenth) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    const std::vector<float> values =
        random_row(1 + seed * 3, seed, seed % 3 == 0 ? 50.0f : 0.0f, std::exp2(float(seed) - 20));
    const std::vector<float> back = round_trip(KvType::kFp8, values);
    float largest = 0;
    for (const float v : values) largest = std::max(largest, std::abs(v));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float bound = std::max(std::abs(values[i]) / 16, largest / 448 * 0x1p-10f) * 1.00001f;
      EXPECT_LE(std::abs(values[i] - back[i]), bound) << "seed " << seed << ", value " << i;
    }
  }
}

// A step of 1: the codes are the values less the smallest one. The first of a pair is the low half.
TEST(KvType, BytesOfIntegerRows) {
  const std::vector<float> values = {-2, 13, 3, -1, 0};
  std::vector<std::byte> expected(11);
  const float numbers[] = {1, -2};
  std::memcpy(expected.data(), numbers, 8);
  expected[8] = std::byte{0xf0};
  expected[9] = std::byte{0x15};
  expected[10] = std::byte{0x02};
  EXPECT_EQ(encoded(KvType::kInt4, values), expected);

  const std::vector<float> wide = {-5, 250, 0};
  std::vector<std::byte> bytes(11);
  const float wide_numbers[] = {1, -5};
  std::memcpy(bytes.data(), wide_numbers, 8);
  bytes[9] = std::byte{255};
  bytes[10] = std::byte{5};
  EXPECT_EQ(encoded(KvType::kInt8, wide), bytes);
}

// Where the codes of a row stand.
std::vector<double> levels_of(KvType type, const std::vector<float>& values) {
  const KvScale stored = kv_row_scale(encoded(type, values).data());
  std::vector<double> levels;
  for (int code = 0; code <= (type == KvType::kInt8 ? 255 : 15); ++code) {
    levels.push_back(double{stored.offset} + double{stored.scale} * code);
  }
  return levels;
}

std::vector<float> row_of_seed(unsigned seed) {
  return random_row(1 + seed * 3, seed, seed % 3 == 0 ? 50.0f : 0.0f, std::exp2(float(seed) - 20));
}

// No level of the row's own grid is nearer than the one chosen, and that of int8 spans the row.
TEST(KvType, EveryValueGoesToTheNearestLevel) {
  for (const KvType type : {KvType::kInt8, KvType::kInt4}) {
    for (unsigned seed = 0; seed < 40; ++seed) {
      const std::vector<float> values = row_of_seed(seed);
      const std::vector<float> back = round_trip(type, values);
      const std::vector<double> levels = levels_of(type, values);
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      const double range = double{*high} - double{*low};
      if (type == KvType::kInt8) {
        EXPECT_EQ(levels.front(), double{*low});
        EXPECT_NEAR(levels.back(), double{*high}, range * 0x1p-22);
      }
      for (std::size_t i = 0; i < values.size(); ++i) {
        double nearest = std::numeric_limits<double>::infinity();
        for (const double level : levels) {
          nearest = std::min(nearest, std::abs(double{values[i]} - level));
        }
        // Rounding of the scale, over all levels, and of the decoded value.
        const double slack = range * 0x1p-22 + std::abs(double{back[i]}) * 0x1p-22;
        EXPECT_LE(std::abs(double{values[i]} - double{back[i]}), nearest + slack)
            << to_string(type) << ", seed " << seed << ", value " << i;
      }
    }
  }
}

// Sum of squared errors over the 16 evenly spaced levels of [low, high].
double error_within(const std::vector<float>& values, double low, double high) {
  const double step = (high - low) / 15;
  double sum = 0;
  for (const float v : values) {
    const double code = std::clamp(std::nearbyint((double{v} - low) / step), 0.0, 15.0);
    sum += std::pow(double{v} - (low + step * code), 2);
  }
  return sum;
}

// The least over ranges that leave up to a sixth out at either end, or reach beyond it a little.
double least_error(const std::vector<float>& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const double range = double{*high} - double{*low};
  double least = std::numeric_limits<double>::infinity();
  for (int below = -4; below <= 28; ++below) {
    for (int above = -4; above <= 28; ++above) {
      least = std::min(least, error_within(values, double{*low} + range * below / 168,
                                           double{*high} - range * above / 168));
    }
  }
  return least;
}

// int4 never loses to its full range, and little to the best range there is.
TEST(KvType, FourBitsAreFitted) {
  for (const std::int64_t count : {5, 64, 128, 256}) {
    double fitted = 0, full = 0, least = 0;
    for (unsigned seed = 0; seed < 50; ++seed) {
      const std::vector<float> values = random_row(count, seed, seed % 2 == 0 ? 3.0f : 0.0f, 1);
      const std::vector<float> back = round_trip(KvType::kInt4, values);
      double error = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        error += std::pow(double{values[i]} - double{back[i]}, 2);
      }
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      const double of_full = error_within(values, double{*low}, double{*high});
      EXPECT_LE(error, of_full * 1.001 + 1e-6) << count << ", seed " << seed;
      fitted += error;
      full += of_full;
      least += least_error(values);
    }
    EXPECT_LT(fitted, 1.08 * least) << count;
    EXPECT_LT(fitted, (count >= 64 ? 0.85 : 1) * full) << count;
  }
}

// What has no fit keeps its full range: longer rows, and those whose fit float32 cannot say.
TEST(KvType, RowsThatAreNotFitted) {
  const float most = std::numeric_limits<float>::max();
  std::vector<float> large(16, 0.96f * most);  // the fit would have its last level beyond
  std::fill_n(large.begin(), 4, 0.0f);
  large.back() = most;
  for (const float sign : {1.0f, -1.0f}) {
    for (float& v : large) v *= sign;
    for (const std::vector<float>& values : {random_row(1025, 1, 0, 1), large}) {
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      const std::vector<double> levels = levels_of(KvType::kInt4, values);
      EXPECT_EQ(levels.front(), double{*low});
      EXPECT_NEAR(levels.back(), double{*high}, (levels.back() - levels.front()) * 0x1p-22);
    }
  }
}

TEST(KvType, ConstantRowsAreExact) {
  for (const KvType type : {KvType::kInt8, KvType::kInt4}) {
    for (const float value : {0.0f, 0.1f, -3e38f, 1e-45f, 65504.5f}) {
      EXPECT_EQ(round_trip(type, std::vector<float>(7, value)), std::vector<float>(7, value));
    }
    EXPECT_EQ(round_trip(type, {0.3f}), std::vector<float>{0.3f});
    // A range too small for a scale.
    const std::vector<float> tiny = {1e-40f, 2e-40f};
    EXPECT_LE(std::abs(round_trip(type, tiny)[1] - tiny[1]), 1e-36f);
  }
}

TEST(KvType, DamagedRowsDecodeToNan) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const KvType type : {KvType::kInt8, KvType::kInt4, KvType::kFp8}) {
    for (const float damage : {kInfinity, -kInfinity, kNan}) {
      for (const float v : round_trip(type, {1, damage, 2})) EXPECT_TRUE(std::isnan(v)) << damage;
    }
    if (type == KvType::kFp8) continue;  // has no range to overflow
    for (const float v : round_trip(type, {-3e38f, 3e38f})) EXPECT_TRUE(std::isnan(v));
  }
}

TEST(KvType, FloatRowsRound) {
  const std::vector<float> values = {1.0f, -0.1f, 3e38f};
  EXPECT_EQ(round_trip(KvType::kF32, values), values);
  EXPECT_EQ(round_trip(KvType::kF16, {1.0f, 1e6f})[1], std::numeric_limits<float>::infinity());
  EXPECT_EQ(round_trip(KvType::kBF16, {1.00390625f})[0], 1.0f);  // a tie goes to even
}

}  // namespace
}  // namespace nibble
