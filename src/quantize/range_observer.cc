#include "quantize/range_observer.h"

#include "base/error.h"

namespace nibble {
namespace {

const Calibrator& calibrator_of(const CalibrationOptions& options) {
  return find_calibrator(options.range.empty() ? "minmax" : options.range);
}

}  // namespace

void RangeObserver::on_input(const std::string& site, const float* x, std::int64_t rows,
                             std::int64_t cols) {
  if (rows == 0) return;
  try {
    histograms_[site].add({x, static_cast<std::size_t>(rows * cols)});
  } catch (const Error& error) {
    fail(error.kind(), "layer {}, the input of site {}: {}", layer_, site, error.what());
  }
}

bool needs_histograms(const CalibrationOptions& options) {
  return calibrator_of(options).name != "minmax";
}

std::string why_no_range(const CalibrationOptions& options, const ActivationFormat& format) {
  const Calibrator& calibrator = calibrator_of(options);
  if (!calibrator.of_integers || format.descriptor().element.kind == ElementKind::kInt) return "";
  return fmt::format(
      "calibrator '{}' counts the errors of integers, and {} has none; take minmax, "
      "moving-average or percentile",
      calibrator.name, format.name());
}

double calibrated_range(const CalibrationOptions& options, const ActivationFormat& format,
                        const Histogram& histogram) {
  CalibratorOptions how;
  if (format.descriptor().element.kind == ElementKind::kInt) {
    how.bits = format.descriptor().element.bits;
  }
  if (options.percentile > 0) how.percentile = options.percentile;
  if (options.gamma > 0) how.gamma = options.gamma;
  return calibrator_of(options).calibrate(histogram, how);
}

}  // namespace nibble
