// One histogram of magnitudes, filled batch by batch, that every calibrator of a clipping range
// reads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nibble {

// Bins of |x| of equal width from 0, and of those values that are negative. The first batch that
// holds anything but zeros sets the width (its largest magnitude over `bins`); a later batch with a
// larger magnitude appends bins of the same width, as TensorRT's calibrator does. Where appending
// would pass `most_bins`, pairs of bins are merged first, so that memory stays bounded whatever the
// data. Not thread-safe.
class Histogram {
 public:
  static constexpr std::size_t kBins = 2048;
  static constexpr std::size_t kMostBins = std::size_t{1} << 16;
  // For a histogram a channel: the whole model's would not fit the memory.
  static constexpr std::size_t kChannelBins = 512;
  static constexpr std::size_t kMostChannelBins = 4 * kChannelBins;

  explicit Histogram(std::size_t bins = kBins, std::size_t most_bins = kMostBins);
  // With given counts of bins of `width`, none of negative values, for data that was counted
  // elsewhere.
  Histogram(std::vector<std::int64_t> counts, double width);
  static Histogram of_channel() { return Histogram(kChannelBins, kMostChannelBins); }

  // One batch. kCorrupt when it holds a NaN or infinity, and the histogram is as before.
  void add(std::span<const float> batch);

  // Bin i covers [i * width, (i + 1) * width), the last one its upper end too. Empty until
  // something but zeros was added.
  const std::vector<std::int64_t>& counts() const { return counts_; }
  // Those of them that are negative values, as many bins.
  const std::vector<std::int64_t>& negative() const { return negative_; }
  double width() const { return width_; }
  double edge(std::size_t i) const { return width_ * static_cast<double>(i); }
  double center(std::size_t i) const { return width_ * (static_cast<double>(i) + 0.5); }

  std::int64_t total() const;                  // values counted
  double largest() const { return largest_; }  // magnitude over all batches
  // The least and the greatest value, widened to hold 0.
  double lowest() const { return lowest_; }
  double highest() const { return highest_; }
  // Exponential moving averages over the batches of the largest magnitude, the least and the
  // greatest value: the first batch sets them, each later one moves them by kMomentum of the
  // difference.
  static constexpr double kMomentum = 0.01;
  double moving_average() const { return average_largest_; }
  double moving_lowest() const { return average_lowest_; }
  double moving_highest() const { return average_highest_; }

 private:
  void grow(double largest);
  void move_averages(double lowest, double highest);

  std::size_t bins_;
  std::size_t most_bins_;
  std::vector<std::int64_t> counts_;
  std::vector<std::int64_t> negative_;
  double width_ = 0;
  std::int64_t zeros_ = 0;  // counted before the width was known
  double largest_ = 0;
  double lowest_ = 0;
  double highest_ = 0;
  double average_largest_ = 0;
  double average_lowest_ = 0;
  double average_highest_ = 0;
  bool any_batch_ = false;
};

}  // namespace nibble
