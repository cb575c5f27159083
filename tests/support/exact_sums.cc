#include "support/exact_sums.h"

#include <cmath>

namespace nibble::test {

ExactSums::ExactSums(const std::vector<float>& w, std::int64_t rows, std::int64_t cols)
    : rows_(rows), cols_(cols), columns_(w.size()) {
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t k = 0; k < cols; ++k) {
      columns_[static_cast<std::size_t>(k * rows + n)] =
          static_cast<double>(w[static_cast<std::size_t>(n * cols + k)]);
    }
  }
}

void ExactSums::add(const float* x, std::vector<double>& sums,
                    std::vector<double>& magnitudes) const {
  double* const sum = sums.data();
  double* const magnitude = magnitudes.data();
  const double* w = columns_.data();
  for (std::int64_t k = 0; k < cols_; ++k, w += rows_) {
    const auto value = static_cast<double>(x[k]);
    for (std::int64_t n = 0; n < rows_; ++n) {
      const double product = value * w[n];
      sum[n] += product;
      magnitude[n] += std::abs(product);
    }
  }
}

}  // namespace nibble::test
