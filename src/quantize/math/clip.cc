#include "quantize/math/clip.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "ops/axpy.h"
#include "quantize/math/row_chunks.h"

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

  const Range& range(std::size_t group) const { return ranges_[group]; }

  // Tries factors(index of the group) for every group and keeps them where they cost less.
  template <class Factors>
  void try_factors(const Factors& factors) {
    std::vector<Range> candidates = ranges_;
    for (std::size_t g = 0; g < candidates.size(); ++g) {
      Range& range = candidates[g];
      const auto [lo, hi] = factors(g);
      range.lo_factor = lo;
      range.hi_factor = hi;
      range.error = 0;
      range.tried = true;
    }
    add_errors(candidates, [&](std::int64_t offset, const float* run, const float* rounded) {
      return error_of(offset, run, rounded);
    });
    for (std::size_t g = 0; g < ranges_.size(); ++g) {
      if (!ranges_[g].tried || candidates[g].error < ranges_[g].error) ranges_[g] = candidates[g];
    }
  }

  // Tries common factors of both ends; of more than `shortlist` > 0 those of each group that would
  // be the best if its columns were uncorrelated.
  void try_common(std::span<const double> factors, int shortlist) {
    const auto wanted = static_cast<std::size_t>(shortlist);
    if (measure_.hessian == nullptr || wanted == 0 || wanted >= factors.size()) {
      for (const double f : factors) {
        try_factors([&](std::size_t) { return std::pair(f, f); });
      }
      return;
    }
    std::vector<std::vector<std::pair<double, double>>> ranked(ranges_.size());  // error, factor
    for (const double f : factors) {
      std::vector<Range> candidates = ranges_;
      for (Range& range : candidates) range = {range.lo, range.hi, f, f, 0, false};
      add_errors(candidates, [&](std::int64_t offset, const float* run, const float* rounded) {
        return uncorrelated_error(offset, run, rounded);
      });
      for (std::size_t g = 0; g < ranked.size(); ++g) {
        ranked[g].emplace_back(candidates[g].error, f);
      }
    }
    for (auto& group : ranked) {
      std::ranges::stable_sort(group, {}, [](const auto& entry) { return entry.first; });
    }
    // The full range is among those tried, so that the result is never worse.
    try_factors([](std::size_t) { return std::pair(1.0, 1.0); });
    for (std::size_t place = 0; place < wanted; ++place) {
      try_factors([&](std::size_t g) {
        return std::pair(ranked[g][place].second, ranked[g][place].second);
      });
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

  // Adds what the grids of each range cost, by error(offset, weights, rounded weights) of each run.
  template <class Error>
  void add_errors(std::vector<Range>& candidates, const Error& error) {
    const WeightGrids grids = make_grids(candidates);
    std::vector<float> rounded(static_cast<std::size_t>(length_));
    for_each_run([&](std::size_t group, std::int64_t offset, const float* run) {
      grids.round(offset / cols_, offset % cols_, length_, run, rounded.data());
      candidates[group].error += error(offset, run, rounded.data());
    });
  }

  double pull_error(std::int64_t offset, const float* run, const float* rounded) const {
    if (measure_.pull.empty()) return 0;
    double sum = 0;
    for (std::int64_t j = 0; j < length_; ++j) {
      sum += static_cast<double>(measure_.pull[static_cast<std::size_t>(offset + j)]) *
             (static_cast<double>(run[j]) - static_cast<double>(rounded[j]));
    }
    return 2 * sum;
  }

  double error_of(std::int64_t offset, const float* run, const float* rounded) const {
    return group_error(measure_, offset % cols_, run, rounded, length_) +
           pull_error(offset, run, rounded);
  }

  // The same if M were diagonal.
  double uncorrelated_error(std::int64_t offset, const float* run, const float* rounded) const {
    const Hessian& hessian = *measure_.hessian;
    double sum = 0;
    for (std::int64_t j = 0; j < length_; ++j) {
      const std::int64_t channel = offset % cols_ + j;
      const double d = static_cast<double>(run[j]) - static_cast<double>(rounded[j]);
      sum += d * d * hessian.moments[static_cast<std::size_t>(channel * (hessian.channels + 1))];
    }
    return sum + pull_error(offset, run, rounded);
  }

  double total_error(const WeightGrids& grids) const {
    std::vector<float> rounded(static_cast<std::size_t>(length_));
    double total = 0;
    for_each_run([&](std::size_t, std::int64_t offset, const float* run) {
      grids.round(offset / cols_, offset % cols_, length_, run, rounded.data());
      total += error_of(offset, run, rounded.data());
    });
    return total;
  }

  // The full ranges of the clipped weights are the narrowed ranges of the weights. Where a range is
  // wider than its weights, the weights at its ends are moved outwards.
  WeightGrids make_grids(const std::vector<Range>& ranges) {
    for_each_run([&](std::size_t group, std::int64_t offset, const float* run) {
      const Range& range = ranges[group];
      const auto lo = static_cast<float>(static_cast<double>(range.lo) * range.lo_factor);
      const auto hi = static_cast<float>(static_cast<double>(range.hi) * range.hi_factor);
      float* out = clipped_.data() + offset;
      for (std::int64_t j = 0; j < length_; ++j) {
        const bool lowest = run[j] < 0 && run[j] <= range.lo;
        const bool highest = run[j] > 0 && run[j] >= range.hi;
        out[j] = lowest ? lo : highest ? hi : std::min(std::max(run[j], lo), hi);
      }
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

ErrorMeasure measure_rows(const ErrorMeasure& measure, std::int64_t begin, std::int64_t end) {
  if (measure.pull.empty()) return measure;
  const std::int64_t cols = measure.hessian->channels;
  return {measure.weight, measure.hessian,
          measure.pull.subspan(static_cast<std::size_t>(begin * cols),
                               static_cast<std::size_t>((end - begin) * cols))};
}

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
  NIBBLE_CHECK(measure.pull.empty() ||
               (measure.hessian != nullptr &&
                static_cast<std::int64_t>(measure.pull.size()) == rows * cols));
  RangeSearch search(format, w, rows, cols, measure);
  const auto factor = [&](int k) { return 1 - grid.max_shrink * k / grid.steps; };
  std::vector<double> factors;
  for (int k = 0; k <= grid.steps; ++k) factors.push_back(factor(k));
  for (int k = 1; factor(-k) <= 1 + grid.max_stretch; ++k) factors.push_back(factor(-k));
  search.try_common(factors, grid.shortlist);
  if (!grid.independent || format->descriptor().scheme.symmetric) return search.best();
  for (int k = 0; k <= grid.steps; ++k) {
    search.try_factors(
        [&](std::size_t g) { return std::pair(factor(k), search.range(g).hi_factor); });
  }
  for (int k = 0; k <= grid.steps; ++k) {
    search.try_factors(
        [&](std::size_t g) { return std::pair(search.range(g).lo_factor, factor(k)); });
  }
  return search.best();
}

QuantTensor encode_clipped(const FormatPtr& format, const float* w, std::int64_t rows,
                           std::int64_t cols, const ErrorMeasure& measure, const ClipGrid& grid,
                           ThreadPool& pool) {
  return encode_by_rows(format, rows, cols, pool, [&](std::int64_t begin, std::int64_t end) {
    const float* const part = w + begin * cols;
    return clipped_grids(format, part, end - begin, cols, measure_rows(measure, begin, end), grid)
        .encode(part);
  });
}

}  // namespace nibble
