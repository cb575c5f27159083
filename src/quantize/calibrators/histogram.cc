#include "quantize/calibrators/histogram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace nibble {
namespace {

struct Extremes {
  double lowest = 0;
  double highest = 0;
};

Extremes extremes_of(std::span<const float> batch) {
  float lowest = 0;
  float highest = 0;
  bool finite = true;
  for (const float v : batch) {
    finite = finite && std::abs(v) <= std::numeric_limits<float>::max();
    lowest = std::min(lowest, v);
    highest = std::max(highest, v);
  }
  if (!finite) fail(ErrorKind::kCorrupt, "calibration: the values hold NaN or infinity");
  return {double{lowest}, double{highest}};
}

void merge_pairs(std::vector<std::int64_t>& counts) {
  if (counts.size() % 2 != 0) counts.push_back(0);
  for (std::size_t i = 0; i < counts.size() / 2; ++i) {
    counts[i] = counts[2 * i] + counts[2 * i + 1];
  }
  counts.resize(counts.size() / 2);
}

}  // namespace

Histogram::Histogram(std::size_t bins, std::size_t most_bins) : bins_(bins), most_bins_(most_bins) {
  NIBBLE_CHECK(bins >= 2 && bins <= most_bins / 2);
}

Histogram::Histogram(std::vector<std::int64_t> counts, double width)
    : bins_(counts.size()),
      most_bins_(kMostBins),
      counts_(std::move(counts)),
      negative_(bins_),
      width_(width) {
  NIBBLE_CHECK(bins_ >= 2 && bins_ <= kMostBins && width > 0);
  highest_ = largest_ = edge(bins_);
  move_averages(0, highest_);
}

std::int64_t Histogram::total() const {
  return std::accumulate(counts_.begin(), counts_.end(), zeros_);
}

void Histogram::grow(double largest) {
  if (counts_.empty()) {
    // A width that is no zero even where the magnitudes are subnormal.
    width_ = std::max(largest / static_cast<double>(bins_), 1e-300);
    counts_.resize(bins_);
    negative_.resize(bins_);
    counts_[0] = std::exchange(zeros_, 0);
    return;
  }
  while (largest / width_ > static_cast<double>(most_bins_)) {
    merge_pairs(counts_);
    merge_pairs(negative_);
    width_ *= 2;
  }
  const auto needed = static_cast<std::size_t>(std::ceil(largest / width_));
  if (needed <= counts_.size()) return;
  counts_.resize(needed);
  negative_.resize(needed);
}

void Histogram::move_averages(double lowest, double highest) {
  const double momentum = any_batch_ ? kMomentum : 1;
  average_largest_ += momentum * (std::max(-lowest, highest) - average_largest_);
  average_lowest_ += momentum * (lowest - average_lowest_);
  average_highest_ += momentum * (highest - average_highest_);
  any_batch_ = true;
}

void Histogram::add(std::span<const float> batch) {
  if (batch.empty()) return;
  const auto [lowest, highest] = extremes_of(batch);
  const double largest = std::max(-lowest, highest);
  move_averages(lowest, highest);
  lowest_ = std::min(lowest_, lowest);
  highest_ = std::max(highest_, highest);
  if (largest == 0 && counts_.empty()) {
    zeros_ += static_cast<std::int64_t>(batch.size());
    return;
  }
  if (largest > largest_) {
    grow(largest);
    largest_ = largest;
  }
  for (const float v : batch) {
    const auto at = static_cast<std::size_t>(static_cast<double>(std::abs(v)) / width_);
    const std::size_t bin = std::min(at, counts_.size() - 1);
    ++counts_[bin];
    negative_[bin] += v < 0 ? 1 : 0;
  }
}

}  // namespace nibble
