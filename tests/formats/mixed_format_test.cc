#include "formats/mixed_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/registry.h"
#include "support/decoded.h"
#include "support/random_floats.h"
#include "support/test_data.h"

namespace nibble {
namespace {

// As large as weights are.
std::vector<float> gaussian(std::int64_t count, unsigned seed) {
  return test::random_floats(count, seed, 0.02f);
}

using test::decoded;

TEST(MixedFormat, NamesRoundTripThroughTheGrammar) {
  for (const char* name : {"mixed_4g128", "mixed_8g32x2_6g128", "mixed_5g64p10_4g64",
                           "mixed_8g32p5_6g64x3_3g32x1_2g16"}) {
    EXPECT_EQ(parse_weight_format(name)->name(), name);
  }
  for (const char* name : {"mixed", "mixed_4", "mixed_4g", "mixed_4g32_", "mixed_4g32y2",
                           "mixed_9g32", "mixed_4g0", "mixed4g32", "mixed_4g32x"}) {
    EXPECT_ERROR(parse_weight_format(name),
                 name == std::string("mixed") ? ErrorKind::kUnsupported : ErrorKind::kUsage, "");
  }
  for (const char* name : {"mixed_7g32", "mixed_3g16", "mixed_4g32x2", "mixed_4g32_4g32",
                           "mixed_4g32p101_4g32", "mixed_1g32"}) {
    EXPECT_ERROR(parse_weight_format(name), ErrorKind::kUnsupported, "mixed widths");
  }
}

TEST(MixedFormat, RunsCoverTheColumns) {
  const auto runs = [](const char* name, std::int64_t cols) {
    return mixed_runs(*parse_weight_format(name), cols);
  };
  const auto split = runs("mixed_6g32p10_4g64", 320);
  ASSERT_EQ(split.size(), 2u);
  EXPECT_EQ(split[0].end, 32);  // a tenth, in whole groups
  EXPECT_EQ(split[1].word, 6);
  EXPECT_EQ(split[1].groups, 5);  // the last of them half as long
  EXPECT_EQ(mixed_words(split), 6 + 36);
  EXPECT_EQ(runs("mixed_6g128p50_4g64", 128).size(), 1u);  // nothing is left
  EXPECT_NE(parse_weight_format("mixed_6g64x3_4g64")->why_not(4, 128), "");
  EXPECT_EQ(parse_weight_format("mixed_6g64x2_4g64")->why_not(4, 128), "");
}

// Half a step of the largest scale of the group at most, whatever the search took: no value is
// further from its weight than rounding to nearest under it, but those that 0.7 of the range cuts.
TEST(MixedFormat, ErrorIsThatOfItsBits) {
  const std::int64_t rows = 32, cols = 256;
  const std::vector<float> w = gaussian(rows * cols, 3);
  double power = 0;
  for (const float v : w) power += double{v} * double{v};
  // Of uniform steps of least error for Gaussian values: 0.037, 0.0115, 0.0035, 0.00104 (Max 1960),
  // and more for scales of 4 bits that many columns share.
  for (const auto& [name, most] :
       std::vector<std::pair<const char*, double>>{{"mixed_3g32", 0.045},
                                                   {"mixed_4g32", 0.014},
                                                   {"mixed_5g32", 0.004},
                                                   {"mixed_6g32", 0.0012},
                                                   {"mixed_8g32", 0.00012}}) {
    const QuantTensor tensor = parse_weight_format(name)->encode(w.data(), rows, cols);
    validate(tensor);
    check_mixed_planes(tensor, name);
    const std::vector<float> back = decoded(tensor);
    double error = 0;
    for (std::size_t i = 0; i < w.size(); ++i) error += std::pow(double{back[i]} - double{w[i]}, 2);
    EXPECT_LT(error / power, most) << name;
  }
}

TEST(MixedFormat, DecodesAnyPartOfARow) {
  const std::int64_t rows = 8, cols = 336;
  const std::vector<float> w = gaussian(rows * cols, 4);
  const QuantTensor tensor =
      parse_weight_format("mixed_8g32x1_5g64x2_3g32")->encode(w.data(), rows, cols);
  const std::vector<float> whole = decoded(tensor);
  for (const std::int64_t begin : {0, 1, 31, 200, 335}) {
    for (const std::int64_t count : {1, 20, 130, 336}) {
      if (begin + count > cols) continue;
      std::vector<float> part(static_cast<std::size_t>(count) + 1, 1234.5f);
      tensor.format->decode(tensor, 5, begin, count, part.data());
      EXPECT_EQ(std::memcmp(part.data(), whole.data() + 5 * cols + begin,
                            static_cast<std::size_t>(count) * 4),
                0)
          << begin << " " << count;
      EXPECT_EQ(part.back(), 1234.5f);
    }
  }
}

TEST(MixedFormat, ColumnsThatMatterGetTheBits) {
  const std::int64_t rows = 32, cols = 64;
  const std::vector<float> w = gaussian(rows * cols, 5);
  std::vector<float> importance(static_cast<std::size_t>(cols), 1);
  for (std::size_t j = 1; j < importance.size(); j += 2) importance[j] = 100;
  Codec codec;
  codec.importance = importance;
  const QuantTensor tensor =
      parse_weight_format("mixed_8g32x1_2g32")->encode(w.data(), rows, cols, codec);
  const std::vector<float> back = decoded(tensor);
  double errors[2] = {};
  for (std::size_t i = 0; i < w.size(); ++i) errors[i % 2] += std::abs(back[i] - w[i]);
  EXPECT_LT(errors[1] * 20, errors[0]);
}

TEST(MixedFormat, BytesDoNotDependOnThreads) {
  const std::int64_t rows = 64, cols = 512;
  const std::vector<float> w = gaussian(rows * cols, 6);
  const FormatPtr format = parse_weight_format("mixed_6g32p10_4g32");
  const QuantTensor alone = format->encode(w.data(), rows, cols);
  ThreadPool pool(3);
  Codec codec;
  codec.pool = &pool;
  const QuantTensor shared = format->encode(w.data(), rows, cols, codec);
  for (std::size_t i = 0; i < alone.planes.size(); ++i) {
    EXPECT_TRUE(std::ranges::equal(alone.planes[i].bytes(), shared.planes[i].bytes())) << i;
  }
}

TEST(MixedFormat, ZerosStayZeros) {
  std::vector<float> w = gaussian(32 * 64, 7);
  std::fill_n(w.begin(), 64, 0.0f);
  const FormatPtr format = parse_weight_format("mixed_4g32");
  const std::vector<float> back = decoded(format->encode(w.data(), 32, 64));
  EXPECT_TRUE(std::all_of(back.begin(), back.begin() + 64, [](float v) { return v == 0; }));
  const std::vector<float> none(32 * 64, 0.0f);
  EXPECT_EQ(decoded(format->encode(none.data(), 32, 64)), none);
}

}  // namespace
}  // namespace nibble
