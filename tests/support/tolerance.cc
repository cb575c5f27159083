#include "support/tolerance.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace nibble::test {

double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return 0x1p-53;
    case DType::kF32:
      return 0x1p-24;
    case DType::kF16:
      return 0x1p-11;
    case DType::kBF16:
      return 0x1p-8;
    default:
      fail(ErrorKind::kInternal, "no unit roundoff for {}", to_string(dtype));
  }
}

double dot_error_bound(std::int64_t n, double sum_abs_products, DType accumulator) {
  const double nu = static_cast<double>(n) * unit_roundoff(accumulator);
  return nu / (1 - nu) * sum_abs_products;
}

double max_abs_error(std::span<const float> actual, std::span<const float> expected) {
  NIBBLE_CHECK(actual.size() == expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error =
        std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
    if (std::isnan(error)) return std::numeric_limits<double>::quiet_NaN();
    worst = std::max(worst, error);
  }
  return worst;
}

double relative_error(std::span<const float> actual, std::span<const float> expected) {
  NIBBLE_CHECK(actual.size() == expected.size());
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double d = static_cast<double>(actual[i]) - static_cast<double>(expected[i]);
    difference += d * d;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  if (difference == 0) return 0;
  return std::sqrt(difference / norm);
}

}  // namespace nibble::test
