// Ranges of static activation scales, from what a block's linears are fed.
#pragma once

#include <map>
#include <string>

#include "model/model.h"
#include "quantize/calibrators/calibrators.h"
#include "quantize/recipe.h"

namespace nibble {

// By the names that SiteObserver sees. A site that saw no row has no entry.
using LayerHistograms = std::map<std::string, Histogram>;

// Fills a LayerHistograms, a batch of the text being one of the histogram's. kCorrupt, naming the
// layer and the site, when an activation holds a NaN or infinity.
class RangeObserver : public SiteObserver {
 public:
  explicit RangeObserver(std::int64_t layer) : layer_(layer) {}

  void on_input(const std::string& site, const float* x, std::int64_t rows,
                std::int64_t cols) override;

  LayerHistograms take() { return std::move(histograms_); }

 private:
  std::int64_t layer_;
  LayerHistograms histograms_;
};

// Whether the ranges are more than the largest magnitudes, which statistics hold already.
bool needs_histograms(const CalibrationOptions& options);

// Empty, or why a calibrator cannot choose the range of a format: some count the error of integers.
std::string why_no_range(const CalibrationOptions& options, const ActivationFormat& format);

// The largest magnitude that the format is to cover.
double calibrated_range(const CalibrationOptions& options, const ActivationFormat& format,
                        const Histogram& histogram);

}  // namespace nibble
