#include "quantize/math/hessian.h"

#include <algorithm>
#include <cmath>

#include "quantize/math/axpy.h"

namespace nibble {

std::vector<float> Hessian::second_moment() const {
  std::vector<float> result;
  if (rows == 0) return result;
  for (std::int64_t j = 0; j < channels; ++j) {
    const double sum = moments[static_cast<std::size_t>(j * channels + j)];
    result.push_back(static_cast<float>(sum / static_cast<double>(rows)));
  }
  return result;
}

std::vector<float> Hessian::mean_abs() const {
  std::vector<float> result;
  if (rows == 0) return result;
  for (const double sum : sum_abs) {
    result.push_back(static_cast<float>(sum / static_cast<double>(rows)));
  }
  return result;
}

bool Hessian::is_finite() const {
  const auto finite = [](double v) { return std::isfinite(v); };
  return std::ranges::all_of(moments, finite) && std::ranges::all_of(drift, finite);
}

double output_error(const Hessian& hessian, const float* w, const float* q, std::int64_t rows) {
  const std::int64_t n = hessian.channels;
  std::vector<double> difference(static_cast<std::size_t>(n));
  std::vector<double> product(static_cast<std::size_t>(n));
  double total = 0;
  for (std::int64_t row = 0; row < rows; ++row, w += n, q += n) {
    for (std::int64_t j = 0; j < n; ++j) {
      difference[static_cast<std::size_t>(j)] =
          static_cast<double>(w[j]) - static_cast<double>(q[j]);
    }
    std::ranges::fill(product, 0.0);
    subtract_products(product.data(), n, difference.data(), hessian.moments.data(), n, n);
    for (std::size_t j = 0; j < product.size(); ++j) total -= product[j] * difference[j];
  }
  return hessian.rows > 0 ? total / static_cast<double>(hessian.rows) : total;
}

}  // namespace nibble
