#include "quantize/calibrators/histogram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace nibble {
namespace {

double largest_magnitude(std::span<const float> batch) {
  float largest = 0;
  bool finite = true;
  for (const float v : batch) {
    const float magnitude = std::abs(v);
    finite = finite && magnitude <= std::numeric_limits<float>::max();
    largest = std::max(largest, magnitude);
  }
  if (!finite) fail(ErrorKind::kCorrupt, "calibration: the values hold NaN or infinity");
  return static_cast<double>(largest);
}

void merge_pairs(std::vector<std::int64_t>& counts) {
  if (counts.size() % 2 != 0) counts.push_back(0);
  for (std::size_t i = 0; i < counts.size() / 2; ++i) {
    counts[i] = counts[2 * i] + counts[2 * i + 1];
  }
  counts.resize(counts.size() / 2);
}

}  // namespace

Histogram::Histogram(std::size_t bins) : bins_(bins) {
  NIBBLE_CHECK(bins >= 2 && bins <= kMostBins / 2);
}

Histogram::Histogram(std::vector<std::int64_t> counts, double width)
    : bins_(counts.size()), counts_(std::move(counts)), width_(width) {
  NIBBLE_CHECK(bins_ >= 2 && bins_ <= kMostBins && width > 0);
  largest_ = moving_average_ = edge(bins_);
  any_batch_ = true;
}

std::int64_t Histogram::total() const {
  return std::accumulate(counts_.begin(), counts_.end(), zeros_);
}

void Histogram::grow(double largest) {
  if (counts_.empty()) {
    // A width that is no zero even where the magnitudes are subnormal.
    width_ = std::max(largest / static_cast<double>(bins_), 1e-300);
    counts_.resize(bins_);
    counts_[0] = std::exchange(zeros_, 0);
    return;
  }
  while (largest / width_ > static_cast<double>(kMostBins)) {
    merge_pairs(counts_);
    width_ *= 2;
  }
  const auto needed = static_cast<std::size_t>(std::ceil(largest / width_));
  if (needed > counts_.size()) counts_.resize(needed);
}

void Histogram::add(std::span<const float> batch) {
  if (batch.empty()) return;
  const double largest = largest_magnitude(batch);
  moving_average_ =
      any_batch_ ? moving_average_ + kMomentum * (largest - moving_average_) : largest;
  any_batch_ = true;
  if (largest == 0 && counts_.empty()) {
    zeros_ += static_cast<std::int64_t>(batch.size());
    return;
  }
  if (largest > largest_) {
    grow(largest);
    largest_ = largest;
  }
  for (const float v : batch) {
    const auto bin = static_cast<std::size_t>(static_cast<double>(std::abs(v)) / width_);
    ++counts_[std::min(bin, counts_.size() - 1)];
  }
}

}  // namespace nibble
