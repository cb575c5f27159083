#include "quantize/math/gptq.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "quantize/math/axpy.h"
#include "quantize/math/cholesky.h"

namespace nibble {
namespace {

constexpr double kMaxDamping = 1;

double diagonal(const Hessian& hessian, std::int64_t j) {
  return hessian.moments[static_cast<std::size_t>(j * hessian.channels + j)];
}

// The damped moments with rows and columns in the reverse of `order`: the lower factor of the
// reversed matrix, reversed again, is an upper one.
std::vector<double> reversed_moments(const Hessian& hessian, std::span<const std::int64_t> order,
                                     double damping) {
  const std::int64_t n = hessian.channels;
  const double mean = hessian.mean_diagonal();
  std::vector<double> result(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t from = order[static_cast<std::size_t>(n - 1 - i)];
    const double* row = hessian.moments.data() + from * n;
    double* out = result.data() + i * n;
    for (std::int64_t j = 0; j <= i; ++j) out[j] = row[order[static_cast<std::size_t>(n - 1 - j)]];
    if (out[i] == 0) out[i] = mean > 0 ? mean : 1;
    out[i] += damping * mean;
  }
  return result;
}

// w[:, order] and back.
std::vector<float> gather_columns(const float* w, std::int64_t rows,
                                  std::span<const std::int64_t> order) {
  std::vector<float> result;
  result.reserve(static_cast<std::size_t>(rows) * order.size());
  for (std::int64_t row = 0; row < rows; ++row, w += order.size()) {
    for (const std::int64_t j : order) result.push_back(w[j]);
  }
  return result;
}

void scatter_columns(std::span<const float> values, std::span<const std::int64_t> order, float* w) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    w[i / order.size() * order.size() + static_cast<std::size_t>(order[i % order.size()])] =
        values[i];
  }
}

// Whole groups in a block or whole blocks in a group, so that a group's weights are up to date when
// its first column comes up.
std::int64_t aligned_block(std::int64_t block, std::int64_t group) {
  if (group <= block) return block / group * group;
  return group % block == 0 ? block : group;
}

// A matrix whose columns are in the order in which they are rounded.
class ColumnRounding {
 public:
  ColumnRounding(const GptqSteps& steps, WeightGrids& grids, const float* w)
      : steps_(steps),
        grids_(grids),
        cols_(grids.cols()),
        block_(aligned_block(steps.block, grids.group_length())),
        work_(gather_columns(w, grids.rows(), steps.order)),
        errors_(static_cast<std::size_t>(grids.rows() * block_)) {}

  void run(float* w) {
    for (std::int64_t begin = 0; begin < cols_; begin += block_) {
      const std::int64_t end = std::min(begin + block_, cols_);
      for (std::int64_t i = begin; i < end; ++i) round_column(begin, i, end);
      for (std::int64_t row = 0; row < grids_.rows(); ++row) {
        subtract_products(work_.data() + row * cols_ + end, cols_ - end,
                          errors_.data() + row * block_,
                          steps_.factor.upper.data() + begin * cols_ + end, cols_, end - begin);
      }
    }
    scatter_columns(work_, steps_.order, w);
  }

 private:
  void round_column(std::int64_t begin, std::int64_t i, std::int64_t end) {
    const std::int64_t column = steps_.order[static_cast<std::size_t>(i)];
    if (steps_.refit && column % grids_.group_length() == 0) refit(column);
    const float* u = steps_.factor.upper.data() + i * cols_;
    for (std::int64_t row = 0; row < grids_.rows(); ++row) {
      float* at = work_.data() + row * cols_;
      const float rounded = grids_.round(row, column, at[i]);
      const float error = (at[i] - rounded) / u[i];
      errors_[static_cast<std::size_t>(row * block_ + i - begin)] = error;
      at[i] = rounded;
      for (std::int64_t j = i + 1; j < end; ++j) at[j] -= error * u[j];
    }
  }

  void refit(std::int64_t column) {
    const std::int64_t length = grids_.group_length();
    std::vector<float> group;
    for (std::int64_t row = 0; row < grids_.rows(); ++row) {
      const float* at = work_.data() + row * cols_ + column;
      group.insert(group.end(), at, at + length);
    }
    const WeightGrids fitted = steps_.refit(group.data(), grids_.rows(), column, length);
    for (std::int64_t row = 0; row < grids_.rows(); ++row) {
      grids_.take_group(row, column / length, fitted, row);
    }
  }

  const GptqSteps& steps_;
  WeightGrids& grids_;
  std::int64_t cols_, block_;
  std::vector<float> work_;    // [rows, cols]
  std::vector<float> errors_;  // [rows, block], each divided by its diagonal entry of the factor
};

}  // namespace

std::vector<std::int64_t> column_order(ColumnOrder order, const Hessian& hessian,
                                       std::int64_t group_length) {
  std::vector<std::int64_t> result(static_cast<std::size_t>(hessian.channels));
  std::iota(result.begin(), result.end(), 0);
  if (order == ColumnOrder::kStored) return result;
  std::vector<double> largest(static_cast<std::size_t>(hessian.channels / group_length), 0.0);
  for (std::int64_t j = 0; j < hessian.channels; ++j) {
    double& of_group = largest[static_cast<std::size_t>(j / group_length)];
    of_group = std::max(of_group, diagonal(hessian, j));
  }
  std::ranges::stable_sort(result, [&](std::int64_t a, std::int64_t b) {
    const std::int64_t group_a = a / group_length, group_b = b / group_length;
    if (order == ColumnOrder::kGroups && group_a != group_b) {
      const double most_a = largest[static_cast<std::size_t>(group_a)];
      const double most_b = largest[static_cast<std::size_t>(group_b)];
      return most_a != most_b ? most_a > most_b : group_a < group_b;
    }
    return diagonal(hessian, a) > diagonal(hessian, b);
  });
  return result;
}

std::optional<InverseFactor> inverse_factor(const Hessian& hessian,
                                            std::span<const std::int64_t> order, double damping,
                                            ThreadPool& pool) {
  const std::int64_t n = hessian.channels;
  NIBBLE_CHECK(static_cast<std::int64_t>(order.size()) == n);
  for (; damping <= kMaxDamping; damping = damping > 0 ? 10 * damping : 1e-6) {
    std::vector<double> lower = reversed_moments(hessian, order, damping);
    if (!cholesky(lower, n, pool)) continue;
    std::vector<double> inverse(lower.size());
    invert_lower(lower, n, inverse, pool);
    InverseFactor result{std::vector<float>(lower.size()), damping};
    for (std::size_t i = 0; i < inverse.size(); ++i) {
      result.upper[i] = static_cast<float>(inverse[inverse.size() - 1 - i]);
    }
    return result;
  }
  return std::nullopt;
}

void gptq_rows(const GptqSteps& steps, WeightGrids& grids, float* w) {
  NIBBLE_CHECK(static_cast<std::int64_t>(steps.order.size()) == grids.cols());
  ColumnRounding(steps, grids, w).run(w);
}

void follow_drift(const Hessian& hessian, const InverseFactor& factor,
                  std::span<const std::int64_t> order, const DriftStrength& strength,
                  std::int64_t rows, ThreadPool& pool, float* w) {
  const std::int64_t n = hessian.channels;
  std::vector<float> drift(static_cast<std::size_t>(n * n));  // columns in the order
  std::vector<float> lower(drift.size());                     // U^T
  for (std::int64_t i = 0; i < n; ++i) {
    const double* row = hessian.drift.data() + i * n;
    for (std::int64_t j = 0; j < n; ++j) {
      const auto at = static_cast<std::size_t>(i * n + j);
      drift[at] = static_cast<float>(row[order[static_cast<std::size_t>(j)]]);
      lower[static_cast<std::size_t>(j * n + i)] = factor.upper[at];
    }
  }
  const bool residual = strength.residual > 0 && !hessian.residual.empty();
  NIBBLE_CHECK(!residual || static_cast<std::int64_t>(hessian.residual.size()) == rows * n);
  // (w D + R) (U^T U), a row at a time from left to right.
  pool.parallel_for(rows, 8, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> moved(static_cast<std::size_t>(n)), next(moved.size());
    for (std::int64_t row = begin; row < end; ++row) {
      float* values = w + row * n;
      std::ranges::fill(moved, 0.0f);
      subtract_products(moved.data(), n, values, drift.data(), n, n);
      for (std::size_t j = 0; j < moved.size(); ++j) {
        moved[j] *= static_cast<float>(strength.drift);
        if (!residual) continue;
        const auto at = static_cast<std::size_t>(row * n + order[j]);
        moved[j] -= static_cast<float>(strength.residual * hessian.residual[at]);
      }
      std::ranges::fill(next, 0.0f);
      subtract_products(next.data(), n, moved.data(), lower.data(), n, n);
      std::ranges::fill(moved, 0.0f);
      subtract_products(moved.data(), n, next.data(), factor.upper.data(), n, n);
      for (std::size_t j = 0; j < moved.size(); ++j) {
        values[order[j]] -= moved[j];  // of three negations
      }
    }
  });
}

}  // namespace nibble
