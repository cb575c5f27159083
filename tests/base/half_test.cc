#include "base/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace nibble {
namespace {

// The value of a 16-bit pattern from the definition of the format, independent of the conversion
// code.
double value_of(std::uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  const double fraction = std::ldexp(mantissa, -mantissa_bits) + (exponent > 0 ? 1 : 0);
  return sign * std::ldexp(fraction, std::max(exponent, 1) - bias);
}

template <class T>
struct Layout;
template <>
struct Layout<f16> {
  static constexpr int kExponent = 5, kMantissa = 10;
  static f16 from(float v) { return to_f16(v); }
};
template <>
struct Layout<bf16> {
  static constexpr int kExponent = 8, kMantissa = 7;
  static bf16 from(float v) { return to_bf16(v); }
};

template <class T>
class HalfTest : public testing::Test {};
using HalfTypes = testing::Types<f16, bf16>;
TYPED_TEST_SUITE(HalfTest, HalfTypes);

TYPED_TEST(HalfTest, EveryPatternDecodesToItsDefinitionAndBack) {
  using L = Layout<TypeParam>;
  for (int i = 0; i < 0x10000; ++i) {
    const TypeParam half{static_cast<std::uint16_t>(i)};
    const double expected = value_of(half.bits, L::kExponent, L::kMantissa);
    const float actual = to_float(half);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(actual)) << i;
      EXPECT_TRUE(std::isnan(to_float(L::from(actual)))) << i;
    } else {
      ASSERT_EQ(actual, expected) << i;
      ASSERT_EQ(L::from(actual).bits, half.bits) << i;
    }
  }
}

TYPED_TEST(HalfTest, RoundsToNearestWithTiesToEven) {
  using L = Layout<TypeParam>;
  for (int i = 0; i < 0x7fff; ++i) {
    const double low = value_of(static_cast<std::uint16_t>(i), L::kExponent, L::kMantissa);
    const double high = value_of(static_cast<std::uint16_t>(i + 1), L::kExponent, L::kMantissa);
    if (!std::isfinite(high) || std::isnan(low)) continue;
    const float middle = static_cast<float>((low + high) / 2);  // exact: one more mantissa bit
    const int even = (i & 1) == 0 ? i : i + 1;
    ASSERT_EQ(L::from(middle).bits, even) << i;
    ASSERT_EQ(L::from(std::nextafter(middle, 0.0f)).bits, i) << i;
    ASSERT_EQ(L::from(std::nextafter(middle, std::numeric_limits<float>::infinity())).bits, i + 1)
        << i;
  }
}

}  // namespace
}  // namespace nibble
