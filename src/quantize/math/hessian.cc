#include "quantize/math/hessian.h"

#include <algorithm>
#include <cmath>

#include "ops/axpy.h"

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

double Hessian::mean_diagonal() const {
  double sum = 0;
  for (std::int64_t j = 0; j < channels; ++j) {
    sum += moments[static_cast<std::size_t>(j * (channels + 1))];
  }
  return sum / static_cast<double>(channels);
}

bool Hessian::is_finite() const {
  const auto finite = [](double v) { return std::isfinite(v); };
  // |M_ij|^2 <= M_ii M_jj, and an input that is not finite shows in its square.
  for (std::int64_t j = 0; j < channels; ++j) {
    if (!finite(moments[static_cast<std::size_t>(j * (channels + 1))])) return false;
  }
  return std::ranges::all_of(drift, finite) && std::ranges::all_of(residual, finite);
}

double output_error(const Hessian& hessian, std::span<const float> difference, ThreadPool& pool) {
  constexpr std::int64_t kRows = 8;  // that share a row of M while it is in cache
  const std::int64_t n = hessian.channels;
  const std::int64_t total = static_cast<std::int64_t>(difference.size()) / n;
  const std::vector<float> moments(hessian.moments.begin(), hessian.moments.end());
  std::vector<double> errors(static_cast<std::size_t>((total + kRows - 1) / kRows), 0.0);
  const auto add_rows = [&](std::int64_t begin, double& error) {
    const std::int64_t count = std::min(kRows, total - begin);
    const float* d = difference.data() + begin * n;
    std::vector<float> product(static_cast<std::size_t>(count * n), 0.0f);
    for (std::int64_t t = 0; t < n; t += 4) {
      for (std::int64_t row = 0; row < count; ++row) {
        subtract_products(product.data() + row * n, n, d + row * n + t, moments.data() + t * n, n,
                          std::min<std::int64_t>(4, n - t));
      }
    }
    for (std::int64_t i = 0; i < count * n; ++i) {
      error -=
          static_cast<double>(product[static_cast<std::size_t>(i)]) * static_cast<double>(d[i]);
    }
  };
  pool.parallel_for(static_cast<std::int64_t>(errors.size()), 1,
                    [&](std::int64_t first, std::int64_t last) {
                      for (std::int64_t chunk = first; chunk < last; ++chunk) {
                        add_rows(chunk * kRows, errors[static_cast<std::size_t>(chunk)]);
                      }
                    });
  double sum = 0;
  for (const double error : errors) sum += error;
  return hessian.rows > 0 ? sum / static_cast<double>(hessian.rows) : sum;
}

std::vector<float> drift_pull(const Hessian& hessian, const float* w, std::int64_t rows,
                              ThreadPool& pool) {
  if (hessian.drift.empty()) return {};
  const std::int64_t n = hessian.channels;
  const std::vector<float> drift(hessian.drift.begin(), hessian.drift.end());
  std::vector<float> negative(w, w + rows * n);
  for (float& value : negative) value = -value;
  std::vector<float> pull(negative.size());
  pool.parallel_for(rows, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      subtract_products(pull.data() + row * n, n, negative.data() + row * n, drift.data(), n, n);
    }
  });
  return pull;
}

double pulled_error(const Hessian& hessian, std::span<const float> difference,
                    std::span<const float> pull, ThreadPool& pool) {
  double error = output_error(hessian, difference, pool);
  if (hessian.rows > 0) error *= static_cast<double>(hessian.rows);
  for (std::size_t i = 0; i < pull.size(); ++i) {
    error += 2 * static_cast<double>(pull[i]) * static_cast<double>(difference[i]);
  }
  return error;
}

}  // namespace nibble
