#include "quantize/math/refine.h"

#include <algorithm>

#include "base/error.h"
#include "ops/axpy.h"

namespace nibble {
namespace {

// One row on its grids.
class RowRefinement {
 public:
  RowRefinement(const std::vector<float>& moments, std::int64_t row, const float* w,
                WeightGrids& grids, float* q)
      : moments_(moments),
        row_(row),
        cols_(grids.cols()),
        w_(w),
        grids_(grids),
        q_(q),
        error_(static_cast<std::size_t>(cols_)),
        slope_(static_cast<std::size_t>(cols_)) {
    measure();
  }

  // True when a weight has changed.
  bool descend() {
    bool changed = false;
    for (std::int64_t j = 0; j < cols_; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const float* m = moments_.data() + j * cols_;
      const float better = grids_.round(row_, j, q_[j] - slope_[at] / m[j]);
      const float step = better - q_[j];
      // Rounding of the slope alone must not move a weight to and fro.
      if (step == 0 || !(step * (2 * slope_[at] + step * m[j]) < 0)) continue;
      q_[j] = better;
      error_[at] += step;
      for (std::int64_t k = 0; k < cols_; ++k) slope_[static_cast<std::size_t>(k)] += step * m[k];
      changed = true;
    }
    return changed;
  }

  // Scales by least squares, kept where they lower the error once they are rounded.
  void fit_scales() {
    const double before = cost();
    const std::int64_t groups = grids_.groups_per_row(), length = grids_.group_length();
    const std::vector<double> factors = best_factors(groups, length);
    if (factors.empty()) return;
    const std::vector<float> kept(q_, q_ + cols_);
    std::vector<float> scales;
    for (std::int64_t g = 0; g < groups; ++g) {
      scales.push_back(grids_.scale(row_, g));
      const float old = scales.back();
      grids_.set_scale(row_, g,
                       static_cast<float>(double{old} * factors[static_cast<std::size_t>(g)]));
      for (std::int64_t j = g * length; j < (g + 1) * length; ++j) {
        q_[j] = grids_.round(row_, j, q_[j] / old * grids_.scale(row_, g));
      }
    }
    measure();
    if (cost() <= before) return;
    std::ranges::copy(kept, q_);
    for (std::int64_t g = 0; g < groups; ++g) {
      grids_.set_scale(row_, g, scales[static_cast<std::size_t>(g)]);
    }
    measure();
  }

 private:
  void measure() {
    for (std::int64_t j = 0; j < cols_; ++j) error_[static_cast<std::size_t>(j)] = q_[j] - w_[j];
    std::ranges::fill(slope_, 0.0f);
    subtract_products(slope_.data(), cols_, error_.data(), moments_.data(), cols_, cols_);
    for (float& value : slope_) value = -value;
  }

  double cost() const {
    double sum = 0;
    for (std::size_t j = 0; j < error_.size(); ++j) sum += double{error_[j]} * double{slope_[j]};
    return sum;
  }

  // What to multiply each group's part q_g of the row by: A x = b with A_gh = q_g M q_h and b_g =
  // q_g M w; groups of zeros, and all when the equations are singular, keep theirs.
  std::vector<double> best_factors(std::int64_t groups, std::int64_t length) const {
    const auto n = static_cast<std::size_t>(groups);
    std::vector<double> a(n * n, 0.0), b(n, 0.0);
    std::vector<float> product(static_cast<std::size_t>(cols_));  // -M q_g
    for (std::int64_t g = 0; g < groups; ++g) {
      std::ranges::fill(product, 0.0f);
      subtract_products(product.data(), cols_, q_ + g * length,
                        moments_.data() + g * length * cols_, cols_, length);
      const auto at = static_cast<std::size_t>(g);
      for (std::int64_t j = 0; j < cols_; ++j) {
        const double m = -double{product[static_cast<std::size_t>(j)]};
        a[at * n + static_cast<std::size_t>(j / length)] += m * double{q_[j]};
        b[at] += m * double{w_[j]};
      }
    }
    return solve(a, b);
  }

  // Gauss on a small positive semidefinite matrix; empty when it is singular.
  static std::vector<double> solve(std::vector<double>& a, std::vector<double>& b) {
    const std::size_t n = b.size();
    for (std::size_t i = 0; i < n; ++i) {
      if (!(a[i * n + i] > 0)) return {};
      for (std::size_t r = i + 1; r < n; ++r) {
        const double share = a[r * n + i] / a[i * n + i];
        for (std::size_t c = i; c < n; ++c) a[r * n + c] -= share * a[i * n + c];
        b[r] -= share * b[i];
      }
    }
    for (std::size_t i = n; i-- > 0;) {
      for (std::size_t c = i + 1; c < n; ++c) b[i] -= a[i * n + c] * b[c];
      b[i] /= a[i * n + i];
      if (!(b[i] > 0.5 && b[i] < 2)) return {};  // far from the scales that gave these codes
    }
    return b;
  }

  const std::vector<float>& moments_;
  std::int64_t row_, cols_;
  const float* w_;
  WeightGrids& grids_;
  float* q_;
  std::vector<float> error_, slope_;  // q - w, and M (q - w)
};

}  // namespace

std::vector<float> damped_moments(const Hessian& hessian, double damping) {
  const std::int64_t n = hessian.channels;
  const double diagonal = hessian.mean_diagonal();
  const double mean = diagonal > 0 ? diagonal : 1;
  std::vector<float> result(static_cast<std::size_t>(n * n));
  for (std::size_t i = 0; i < result.size(); ++i) {
    double value = hessian.moments[i] / mean;  // of the order of 1, so that float32 holds sums
    if (i % static_cast<std::size_t>(n + 1) == 0) value = (value == 0 ? 1 : value) + damping;
    result[i] = static_cast<float>(value);
  }
  return result;
}

void refine_rows(const std::vector<float>& moments, int passes, const float* w, WeightGrids& grids,
                 float* q) {
  for (std::int64_t row = 0; row < grids.rows() && passes > 0; ++row) {
    RowRefinement refinement(moments, row, w + row * grids.cols(), grids, q + row * grids.cols());
    for (int pass = 0; pass < passes; ++pass) {
      const bool changed = refinement.descend();
      if (grids.has_scales()) refinement.fit_scales();
      if (!changed && !grids.has_scales()) break;
    }
    refinement.descend();  // to the last scales
  }
}

}  // namespace nibble
