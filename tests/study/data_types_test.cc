#include "study/data_types.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/json.h"
#include "support/test_data.h"

namespace nibble {
namespace {

WeightRounding parse_element(const std::string& element, std::int64_t block) {
  for (const WeightRounding& rounding :
       rounding_grid(std::vector{2, 3, 4, 5, 6, 7, 8}, kLowBitTypes, std::vector{block})) {
    if (element_name(rounding) == element) return rounding;
  }
  throw std::runtime_error("no element " + element);
}

Levels levels_for(const WeightRounding& rounding, std::vector<float> values) {
  if (rounding.type != DataType::kQuantile) return levels_of(rounding);
  std::sort(values.begin(), values.end());
  return quantile_levels(values, rounding.bits);
}

// numpy rounded the same matrix: blocks over the flattened values, with a shorter tail.
TEST(DataTypes, RoundsAsNumpyDoes) {
  const Json golden =
      read_json_file((test::source_dir() / "tests/golden/study/rounding.json").string());
  const auto values = golden["values"].get<std::vector<float>>();
  const auto cols = golden["cols"].get<std::int64_t>();
  ThreadPool pool(2);
  for (const Json& c : golden["cases"]) {
    const auto block = c["block"].get<std::int64_t>();
    const WeightRounding rounding = parse_element(c["element"].get<std::string>(), block);
    const auto expected = c["values"].get<std::vector<float>>();
    std::vector<float> rounded = values;
    round_blocks(levels_for(rounding, values), block == 0 ? cols : block, rounded, pool);
    for (std::size_t i = 0; i < values.size(); ++i) {
      // nf levels of numpy are float64, ours float32; another level would be far away.
      ASSERT_NEAR(rounded[i], expected[i], 2e-6 * std::abs(expected[i]))
          << c["element"] << " by " << block << ", value " << i;
    }
  }
}

TEST(DataTypes, GridHasEverySplitOfFloats) {
  const std::vector<std::int64_t> blocks = {64, 0};
  const auto grid = rounding_grid(std::vector{2, 4, 8, 16}, kLowBitTypes, blocks);
  const auto count = [&](DataType type, int bits) {
    return std::ranges::count_if(
        grid, [&](const WeightRounding& r) { return r.type == type && r.bits == bits; });
  };
  EXPECT_EQ(count(DataType::kInt, 4), 2);
  EXPECT_EQ(count(DataType::kFloat, 2), 2 * 1);
  EXPECT_EQ(count(DataType::kFloat, 4), 2 * 3);
  EXPECT_EQ(count(DataType::kFloat, 8), 2 * 7);
  EXPECT_EQ(count(DataType::kNormalFloat, 4), 2);
  EXPECT_EQ(count(DataType::kNormalFloat, 8), 0);
  EXPECT_EQ(count(DataType::kSixteenBit, 16), 1);
}

TEST(DataTypes, EveryScaleAndCodebookCounts) {
  // 1000 weights: 15 blocks of 64 and a tail; 10 channels.
  EXPECT_EQ(stored_bits({DataType::kInt, 4, 0, 64}, 10, 100), 4 * 1000 + 16 * 16);
  EXPECT_EQ(stored_bits({DataType::kFloat, 4, 2, 0}, 10, 100), 4 * 1000 + 16 * 10);
  EXPECT_EQ(stored_bits({DataType::kQuantile, 3, 0, 64}, 10, 100), 3 * 1000 + 16 * 16 + 16 * 8);
  EXPECT_EQ(stored_bits({DataType::kSixteenBit, 16, 0, 0}, 10, 100), 16 * 1000);
}

TEST(DataTypes, TiesGoToEven) {
  ThreadPool pool(1);
  // Under the scale 7 the levels of int4 are the integers.
  std::vector<float> values = {7, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -6.5f, 0.50001f};
  round_blocks(levels_of({DataType::kInt, 4, 0, 0}), 8, values, pool);
  EXPECT_THAT(values, testing::ElementsAre(7, 0, 2, 2, 0, -2, -6, 1));
  // e2m1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 under the scale 6; even codes are 0, 1, 2 and 4.
  std::vector<float> floats = {6, 0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, -5};
  round_blocks(levels_of({DataType::kFloat, 4, 2, 0}), 8, floats, pool);
  EXPECT_THAT(floats, testing::ElementsAre(6, 0, 1, 1, 2, 2, 4, -4));
}

TEST(DataTypes, BlocksOfZerosStayZero) {
  ThreadPool pool(1);
  std::vector<float> values = {0, -0.0f, 0, 1e-30f, 1, -2};
  round_blocks(levels_of({DataType::kInt, 4, 0, 0}), 4, values, pool);
  EXPECT_THAT(values, testing::ElementsAre(0, 0, 0, 0, testing::FloatNear(8.0f / 7, 1e-6f), -2));
  const Levels constant = quantile_levels(std::vector<float>(5, 0.0f), 2);
  round_blocks(constant, 4, values, pool);
  EXPECT_THAT(values, testing::Each(0));
}

TEST(DataTypes, ScalesBeyondF16Saturate) {
  ThreadPool pool(1);
  std::vector<float> values = {1e6f, -65504, std::numeric_limits<float>::max()};
  round_blocks(levels_of({DataType::kInt, 8, 0, 0}), 3, values, pool);
  EXPECT_THAT(values, testing::ElementsAre(65504, -65504, 65504));
}

TEST(DataTypes, SixteenBitsKeepWhatTheyCan) {
  std::vector<float> half = {1.0009765625f, 0.5f};  // f16, not bf16
  round_to_16_bits(half);
  EXPECT_EQ(half[0], 1.0009765625f);
  std::vector<float> neither = {1.0009765625f, 1e30f};
  round_to_16_bits(neither);
  EXPECT_EQ(neither[0], 1.0f);
}

TEST(DataTypes, RefusesWhatIsNone) {
  const std::vector<std::int64_t> blocks = {64};
  EXPECT_ERROR(rounding_grid(std::vector{9}, kLowBitTypes, blocks), ErrorKind::kUsage, "9 bits");
  EXPECT_ERROR(rounding_grid(std::vector{4}, kLowBitTypes, std::vector<std::int64_t>{-1}),
               ErrorKind::kUsage, "block of -1");
  EXPECT_ERROR(parse_data_type("posit"), ErrorKind::kUsage, "int, float, quantile, nf");
}

}  // namespace
}  // namespace nibble
