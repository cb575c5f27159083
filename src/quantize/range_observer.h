// Ranges of static activation scales, from what a block's linears are fed.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/model.h"
#include "quantize/calibrators/calibrators.h"
#include "quantize/math/channel_statistics.h"
#include "quantize/recipe.h"

namespace nibble {

// By the names that SiteObserver sees, one histogram, or one a channel for formats with scales by
// channel. A site that saw no row has no entry.
using LayerHistograms = std::map<std::string, std::vector<Histogram>>;

// Fills a LayerHistograms, a batch of the text being one of the histogram's. kCorrupt, naming the
// layer and the site, when an activation holds a NaN or infinity.
class RangeObserver : public SiteObserver {
 public:
  RangeObserver(std::int64_t layer, bool by_channel, ThreadPool& pool)
      : layer_(layer), by_channel_(by_channel), pool_(pool) {}

  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override;

  LayerHistograms take() { return std::move(histograms_); }

 private:
  std::int64_t layer_;
  bool by_channel_;
  ThreadPool& pool_;
  LayerHistograms histograms_;
};

// Whether ranges of a static format take more than the largest magnitudes, which statistics hold
// already.
bool needs_histograms(const CalibrationOptions& options, const ActivationFormat& format);

// Empty, or why a calibrator cannot choose the range of a format: some count the error of integers,
// some know symmetric ranges only.
std::string why_no_range(const CalibrationOptions& options, const ActivationFormat& format);

// The scales of a static format for a site, as many as it needs; those of nothing but zeros are 1.
// `histograms` are the site's, or null when needs_histograms() says no.
std::vector<AffineParams> static_scales(const CalibrationOptions& options,
                                        const ActivationFormat& format,
                                        const ChannelStatistics& seen,
                                        const std::vector<Histogram>* histograms, ThreadPool& pool);

}  // namespace nibble
