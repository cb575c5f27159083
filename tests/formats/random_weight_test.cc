#include "formats/random_weight.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "formats/registry.h"

namespace nibble {
namespace {

TEST(RandomWeight, HasTheDeviationAskedForAndNoTwoEqualRowsInABand) {
  const QuantTensor weight = random_weight(parse_weight_format("f32"), 100, 512, 3);
  const float* const values = weight.planes[0].data<float>();
  double sum = 0;
  double squares = 0;
  constexpr std::int64_t kBand = 64 * 512;
  for (std::int64_t i = 0; i < kBand; ++i) {
    sum += values[i];
    squares += static_cast<double>(values[i]) * values[i];
  }
  // Five standard errors of 32768 normal numbers.
  EXPECT_NEAR(sum / kBand, 0, 5 * 3 / std::sqrt(kBand));
  EXPECT_NEAR(std::sqrt(squares / kBand), 3, 5 * 3 / std::sqrt(2.0 * kBand));
  EXPECT_NE(values[0], values[512]);
  for (std::int64_t i = kBand; i < 100 * 512; ++i) ASSERT_EQ(values[i], values[i - kBand]);
}

TEST(RandomWeight, EveryPlaneOfAFormatIsFilledAsItsEncoderWould) {
  const FormatPtr format = parse_weight_format("int4_g128_asym");
  const QuantTensor weight = random_weight(format, 128, 256, 1);
  const std::vector<PlaneSpec> planes = format->planes(128, 256);
  ASSERT_EQ(weight.planes.size(), planes.size());
  std::vector<float> first(256);
  std::vector<float> again(256);
  for (std::size_t i = 0; i < planes.size(); ++i) {
    EXPECT_EQ(weight.planes[i].shape(), planes[i].shape);
    EXPECT_EQ(weight.planes[i].dtype(), planes[i].dtype);
  }
  for (std::int64_t row = 0; row < 64; ++row) {
    format->decode(weight, row, 0, 256, first.data());
    format->decode(weight, row + 64, 0, 256, again.data());
    ASSERT_EQ(first, again);
  }
}

}  // namespace
}  // namespace nibble
