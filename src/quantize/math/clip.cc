#include "quantize/math/clip.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "quantize/math/axpy.h"

namespace nibble {
namespace {

constexpr std::int64_t kLanes = 8;  // a fixed order of summation that still vectorises

double sum_of_squares(const float* w, const float* q, std::int64_t count, const float* weight) {
  float lanes[kLanes] = {};
  double total = 0;
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const float d = w[i + lane] - q[i + lane];
      lanes[lane] += d * d * (weight == nullptr ? 1.0f : weight[i + lane]);
    }
  }
  for (; i < count; ++i) {
    const double d = static_cast<double>(w[i]) - static_cast<double>(q[i]);
    total += d * d * (weight == nullptr ? 1.0 : static_cast<double>(weight[i]));
  }
  for (const float lane : lanes) total += static_cast<double>(lane);
  return total;
}

double quadratic_form(const Hessian& hessian, std::int64_t begin, const float* w, const float* q,
                      std::int64_t count) {
  std::vector<double> d(static_cast<std::size_t>(count));
  std::vector<double> product(d.size());
  for (std::size_t j = 0; j < d.size(); ++j) {
    d[j] = static_cast<double>(w[j]) - static_cast<double>(q[j]);
  }
  const double* moments = hessian.moments.data() + begin * hessian.channels + begin;
  subtract_products(product.data(), count, d.data(), moments, hessian.channels, count);
  double total = 0;
  for (std::size_t j = 0; j < d.size(); ++j) total -= d[j] * product[j];
  return total;
}

// Ranges of all groups of a matrix, narrowed by a factor at either end, and what they cost.
class RangeSearch {
 public:
  RangeSearch(const FormatPtr& format, const float* w, std::int64_t rows, std::int64_t cols,
              const ErrorMeasure& measure)
      : format_(format), w_(w), rows_(rows), cols_(cols), measure_(measure) {
    const Scheme& scheme = format->descriptor().scheme;
    whole_ = scheme.granularity == Granularity::kTensor;
    length_ = cols / groups_per_row(scheme, cols);
    ranges_.resize(static_cast<std::size_t>(whole_ ? 1 : rows * (cols / length_)));
    for_each_run([&](std::size_t group, std::int64_t, const float* run) {
      const auto [lo, hi] = std::minmax_element(run, run + length_);
      ranges_[group].lo = std::min(ranges_[group].lo, *lo);
      ranges_[group].hi = std::max(ranges_[group].hi, *hi);
    });
    clipped_.resize(static_cast<std::size_t>(rows * cols));
  }

  struct Range {
    float lo = 0, hi = 0;  // of the weights
    double lo_factor = 1, hi_factor = 1;
    double error = 0;
    bool tried = false;
  };

  // Tries factors(group) for every group and keeps them where they cost less.
  template <class Factors>
  void try_factors(const Factors& factors) {
    std::vector<Range> candidates = ranges_;
    for (Range& range : candidates) {
      const auto [lo, hi] = factors(range);
      range.lo_factor = lo;
      range.hi_factor = hi;
      range.error = 0;
      range.tried = true;
    }
    const WeightGrids grids = make_grids(candidates);
    std::vector<float> rounded(static_cast<std::size_t>(length_));
    for_each_run([&](std::size_t group, std::int64_t offset, const float* run) {
      grids.round(offset / cols_, offset % cols_, length_, run, rounded.data());
      candidates[group].error +=
          group_error(measure_, offset % cols_, run, rounded.data(), length_);
    });
    for (std::size_t g = 0; g < ranges_.size(); ++g) {
      if (!ranges_[g].tried || candidates[g].error < ranges_[g].error) ranges_[g] = candidates[g];
    }
  }

  // A scale of scales depends on all ranges, so that what was best alone may not be best together.
  WeightGrids best() {
    WeightGrids narrowed = make_grids(ranges_);
    if (groups_are_independent(format_->descriptor().scheme)) return narrowed;
    WeightGrids full(format_, w_, rows_, cols_);
    return total_error(full) < total_error(narrowed) ? std::move(full) : std::move(narrowed);
  }

 private:
  // Calls body(group, offset of its first weight, weights) for runs of length_ within a row.
  template <class Body>
  void for_each_run(const Body& body) const {
    for (std::int64_t offset = 0; offset < rows_ * cols_; offset += length_) {
      body(whole_ ? std::size_t{0} : static_cast<std::size_t>(offset / length_), offset,
           w_ + offset);
    }
  }

  double total_error(const WeightGrids& grids) const {
    std::vector<float> rounded(static_cast<std::size_t>(length_));
    double total = 0;
    for_each_run([&](std::size_t, std::int64_t offset, const float* run) {
      grids.round(offset / cols_, offset % cols_, length_, run, rounded.data());
      total += group_error(measure_, offset % cols_, run, rounded.data(), length_);
    });
    return total;
  }

  // The full ranges of the clipped weights are the narrowed ranges of the weights.
  WeightGrids make_grids(const std::vector<Range>& ranges) {
    for_each_run([&](std::size_t group, std::int64_t offset, const float* run) {
      const Range& range = ranges[group];
      const auto lo = static_cast<float>(static_cast<double>(range.lo) * range.lo_factor);
      const auto hi = static_cast<float>(static_cast<double>(range.hi) * range.hi_factor);
      float* out = clipped_.data() + offset;
      for (std::int64_t j = 0; j < length_; ++j) out[j] = std::min(std::max(run[j], lo), hi);
    });
    return WeightGrids(format_, clipped_.data(), rows_, cols_);
  }

  FormatPtr format_;
  const float* w_;
  std::int64_t rows_, cols_, length_ = 0;
  bool whole_ = false;
  ErrorMeasure measure_;
  std::vector<Range> ranges_;
  std::vector<float> clipped_;
};

}  // namespace

double group_error(const ErrorMeasure& measure, std::int64_t begin, const float* w, const float* q,
                   std::int64_t count) {
  if (measure.hessian != nullptr) return quadratic_form(*measure.hessian, begin, w, q, count);
  return sum_of_squares(w, q, count,
                        measure.weight.empty() ? nullptr : measure.weight.data() + begin);
}

WeightGrids clipped_grids(const FormatPtr& format, const float* w, std::int64_t rows,
                          std::int64_t cols, const ErrorMeasure& measure, const ClipGrid& grid) {
  NIBBLE_CHECK(measure.weight.empty() || static_cast<std::int64_t>(measure.weight.size()) == cols);
  NIBBLE_CHECK(measure.hessian == nullptr || measure.hessian->channels == cols);
  using Range = RangeSearch::Range;
  RangeSearch search(format, w, rows, cols, measure);
  const auto factor = [&](int k) { return 1 - grid.max_shrink * k / grid.steps; };
  for (int k = 0; k <= grid.steps; ++k) {
    search.try_factors([&](const Range&) { return std::pair(factor(k), factor(k)); });
  }
  if (!grid.independent || format->descriptor().scheme.symmetric) return search.best();
  for (int k = 0; k <= grid.steps; ++k) {
    search.try_factors([&](const Range& range) { return std::pair(factor(k), range.hi_factor); });
  }
  for (int k = 0; k <= grid.steps; ++k) {
    search.try_factors([&](const Range& range) { return std::pair(range.lo_factor, factor(k)); });
  }
  return search.best();
}

}  // namespace nibble
