// One histogram of magnitudes, filled batch by batch, that every calibrator of a clipping range
// reads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nibble {

// Bins of |x| of equal width from 0. The first batch that holds anything but zeros sets the width
// (its largest magnitude over `bins`); a later batch with a larger magnitude appends bins of the
// same width, as TensorRT's calibrator does. Where appending would pass kMostBins, pairs of bins
// are merged first, so that memory stays bounded whatever the data. Not thread-safe.
class Histogram {
 public:
  static constexpr std::size_t kMostBins = std::size_t{1} << 16;

  explicit Histogram(std::size_t bins = 2048);
  // With given counts of bins of `width`, for data that was counted elsewhere.
  Histogram(std::vector<std::int64_t> counts, double width);

  // One batch. kCorrupt when it holds a NaN or infinity, and the histogram is as before.
  void add(std::span<const float> batch);

  // Bin i covers [i * width, (i + 1) * width), the last one its upper end too. Empty until
  // something but zeros was added.
  const std::vector<std::int64_t>& counts() const { return counts_; }
  double width() const { return width_; }
  double edge(std::size_t i) const { return width_ * static_cast<double>(i); }
  double center(std::size_t i) const { return width_ * (static_cast<double>(i) + 0.5); }

  std::int64_t total() const;                  // values counted
  double largest() const { return largest_; }  // magnitude over all batches
  // Exponential moving average of the batches' largest magnitudes: the first batch sets it, each
  // later one moves it by kMomentum of the difference.
  static constexpr double kMomentum = 0.01;
  double moving_average() const { return moving_average_; }

 private:
  void grow(double largest);

  std::size_t bins_;
  std::vector<std::int64_t> counts_;
  double width_ = 0;
  std::int64_t zeros_ = 0;  // counted before the width was known
  double largest_ = 0;
  double moving_average_ = 0;
  bool any_batch_ = false;
};

}  // namespace nibble
