#include "quantize/range_observer.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {
namespace {

const Calibrator& calibrator_of(const CalibrationOptions& options) {
  return find_calibrator(options.range.empty() ? "minmax" : options.range);
}

// Adds columns [begin, end) of x to their histograms.
void add_columns(const float* x, std::int64_t rows, std::int64_t cols, std::int64_t begin,
                 std::int64_t end, std::vector<Histogram>& histograms) {
  std::vector<float> column(static_cast<std::size_t>(rows));
  for (std::int64_t col = begin; col < end; ++col) {
    for (std::int64_t row = 0; row < rows; ++row) {
      column[static_cast<std::size_t>(row)] = x[row * cols + col];
    }
    histograms[static_cast<std::size_t>(col)].add(column);
  }
}

// What the format is to cover.
CalibratedRange range_of(const CalibrationOptions& options, const ActivationFormat& format,
                         const Histogram& histogram) {
  const ActivationDescriptor& d = format.descriptor();
  CalibratorOptions how;
  if (d.element.kind == ElementKind::kInt) how.bits = d.element.bits;
  if (options.percentile > 0) how.percentile = options.percentile;
  if (options.gamma > 0) how.gamma = options.gamma;
  const Calibrator& calibrator = calibrator_of(options);
  CalibratedRange range;
  if (d.symmetric) {
    range.hi = calibrator.calibrate(histogram, how);
    range.lo = -range.hi;
  } else {
    range = calibrator.calibrate_range(histogram, how);
  }
  // A percentile may lie in the first bin, whose lower edge is no range.
  if (range.lo == range.hi) return {histogram.lowest(), histogram.highest()};
  return range;
}

AffineParams params_over(const ActivationFormat& format, const CalibratedRange& range) {
  const ActivationScale by =
      format.scale_over(static_cast<float>(range.lo), static_cast<float>(range.hi));
  // Zeros stay so under any scale.
  return by.scale > 0 ? AffineParams{by.scale, by.zero} : AffineParams{};
}

}  // namespace

void RangeObserver::on_input(const std::string& site, const float* x, std::int64_t rows,
                             std::int64_t cols) {
  if (rows == 0) return;
  std::vector<Histogram>& histograms = histograms_[site];
  if (histograms.empty()) {
    histograms.assign(by_channel_ ? static_cast<std::size_t>(cols) : 1,
                      by_channel_ ? Histogram::of_channel() : Histogram());
  }
  try {
    if (!by_channel_) return histograms[0].add({x, static_cast<std::size_t>(rows * cols)});
    pool_.parallel_for(cols, 16, [&](std::int64_t begin, std::int64_t end) {
      add_columns(x, rows, cols, begin, end, histograms);
    });
  } catch (const Error& error) {
    fail(error.kind(), "layer {}, the input of site {}: {}", layer_, site, error.what());
  }
}

bool needs_histograms(const CalibrationOptions& options, const ActivationFormat& format) {
  return calibrator_of(options).name != "minmax" || !format.descriptor().symmetric;
}

std::string why_no_range(const CalibrationOptions& options, const ActivationFormat& format) {
  const Calibrator& calibrator = calibrator_of(options);
  const bool integers = format.descriptor().element.kind == ElementKind::kInt;
  if (calibrator.of_integers && !integers) {
    return fmt::format(
        "calibrator '{}' counts the errors of integers, and {} has none; take minmax, "
        "moving-average or percentile",
        calibrator.name, format.name());
  }
  if (!format.descriptor().symmetric && calibrator.calibrate_range == nullptr) {
    return fmt::format(
        "calibrator '{}' is defined for ranges around 0, and {} has a zero point; take minmax, "
        "moving-average, percentile, mse or sqnr",
        calibrator.name, format.name());
  }
  return "";
}

std::vector<AffineParams> static_scales(const CalibrationOptions& options,
                                        const ActivationFormat& format,
                                        const ChannelStatistics& seen,
                                        const std::vector<Histogram>* histograms,
                                        ThreadPool& pool) {
  const bool by_channel = format.descriptor().scope == ActivationScope::kChannel;
  std::vector<AffineParams> params(by_channel ? seen.max_abs.size() : 1);
  if (histograms == nullptr) {
    const float most = *std::ranges::max_element(seen.max_abs);
    for (std::size_t i = 0; i < params.size(); ++i) {
      const auto largest = double{by_channel ? seen.max_abs[i] : most};
      params[i] = params_over(format, {-largest, largest});
    }
    return params;
  }
  NIBBLE_CHECK(histograms->size() == params.size());
  const auto count = static_cast<std::int64_t>(params.size());
  pool.parallel_for(count, 16, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      params[i] = params_over(format, range_of(options, format, (*histograms)[i]));
    }
  });
  return params;
}

}  // namespace nibble
