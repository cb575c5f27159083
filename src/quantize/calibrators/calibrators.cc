#include "quantize/calibrators/calibrators.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/suggest.h"

namespace nibble {
namespace {

void check(const Histogram& histogram, const CalibratorOptions& options) {
  if (histogram.total() == 0) fail(ErrorKind::kUsage, "calibration: no values were counted");
  if (options.bits < 2 || options.bits > 8) {
    fail(ErrorKind::kUsage, "calibration: 2 to 8 bits, not {}", options.bits);
  }
  if (!(options.percentile > 0 && options.percentile <= 100)) {
    fail(ErrorKind::kUsage, "calibration: a percentile above 0 and up to 100, not {}",
         options.percentile);
  }
  if (!(options.gamma >= 0)) {
    fail(ErrorKind::kUsage, "calibration: gamma is not negative, not {}", options.gamma);
  }
}

constexpr std::size_t kFirstBin = 128;  // searches over bins start here

// Rounding and saturation errors of all bins' centres under a range.
struct BinErrors {
  double rounding = 0;
  double saturation = 0;

  // `count` values x, to multiples of `step` from low to high times.
  void add(double x, std::int64_t count, double step, double low, double high) {
    const double code = std::nearbyint(x / step);
    const double error = std::clamp(code, low, high) * step - x;
    (code < low || code > high ? saturation : rounding) +=
        static_cast<double>(count) * error * error;
  }
};

BinErrors bin_errors(const Histogram& histogram, double range, int bits) {
  const double top = (1 << (bits - 1)) - 1;
  const double step = range / top;
  BinErrors errors;
  for (std::size_t i = 0; i < histogram.counts().size(); ++i) {
    const std::int64_t count = histogram.counts()[i];
    if (count == 0) continue;
    errors.add(histogram.center(i), count, step, 0, top);
  }
  return errors;
}

// The same for a range of asymmetric codes.
BinErrors range_errors(const Histogram& histogram, const CalibratedRange& range, int bits) {
  const double top = (1 << bits) - 1;
  const double step = (range.hi - range.lo) / top;
  const double low = std::nearbyint(range.lo / step);
  BinErrors errors;
  for (std::size_t i = 0; i < histogram.counts().size(); ++i) {
    const std::int64_t negative = histogram.negative()[i];
    const std::int64_t positive = histogram.counts()[i] - negative;
    if (positive > 0) errors.add(histogram.center(i), positive, step, low, low + top);
    if (negative > 0) errors.add(-histogram.center(i), negative, step, low, low + top);
  }
  return errors;
}

// The lower edge of the first bin up to whose end a share of all values lies, `before` of them
// ahead of the first; count(i) are those of a bin.
template <class Count>
double percentile_edge(const Histogram& histogram, double share, std::int64_t before,
                       const Count& count) {
  const auto total = static_cast<double>(histogram.total());
  for (std::size_t i = 0; i < histogram.counts().size(); ++i) {
    before += count(i);
    if (static_cast<double>(before) / total >= share) return histogram.edge(i);
  }
  return histogram.edge(histogram.counts().size());
}

// A candidate of AIMET, with a whole zero point.
CalibratedRange cut_to(const CalibratedRange& seen, double step, double offset, double top) {
  const double lo = std::max(seen.lo, step * offset);
  const double hi = std::min(seen.hi, step * (offset + top));
  const double cut = (hi - lo) / top;
  const double zero = std::nearbyint(lo / cut);
  return {cut * zero, cut * (zero + top)};
}

}  // namespace

double calibrate_minmax(const Histogram& histogram, const CalibratorOptions& options) {
  check(histogram, options);
  return histogram.largest();
}

double calibrate_moving_average(const Histogram& histogram, const CalibratorOptions& options) {
  check(histogram, options);
  return histogram.moving_average();
}

double calibrate_percentile(const Histogram& histogram, const CalibratorOptions& options) {
  check(histogram, options);
  if (histogram.counts().empty()) return 0;
  return percentile_edge(histogram, options.percentile / 100, 0,
                         [&](std::size_t i) { return histogram.counts()[i]; });
}

double calibrate_mse(const Histogram& histogram, const CalibratorOptions& options) {
  check(histogram, options);
  if (histogram.counts().empty()) return 0;
  double best = histogram.largest(), least = std::numeric_limits<double>::infinity();
  for (std::size_t i = kFirstBin; i < histogram.counts().size(); ++i) {
    const BinErrors errors = bin_errors(histogram, histogram.center(i), options.bits);
    const double error = errors.rounding + errors.saturation;
    if (error < least) {
      least = error;
      best = histogram.center(i);
    }
  }
  return best;
}

double calibrate_sqnr(const Histogram& histogram, const CalibratorOptions& options) {
  check(histogram, options);
  double best = 0, least = std::numeric_limits<double>::infinity();
  for (int k = 1; k <= 101 && !histogram.counts().empty(); ++k) {
    const double range = histogram.largest() * k / 100;
    const BinErrors errors = bin_errors(histogram, range, options.bits);
    const double cost = errors.rounding + options.gamma * errors.saturation;
    if (cost < least) {
      least = cost;
      best = range;
    }
  }
  return best;
}

CalibratedRange minmax_range(const Histogram& histogram, const CalibratorOptions& options) {
  check(histogram, options);
  return {histogram.lowest(), histogram.highest()};
}

CalibratedRange moving_average_range(const Histogram& histogram, const CalibratorOptions& options) {
  check(histogram, options);
  return {histogram.moving_lowest(), histogram.moving_highest()};
}

CalibratedRange percentile_range(const Histogram& histogram, const CalibratorOptions& options) {
  check(histogram, options);
  if (histogram.counts().empty()) return {};
  const std::vector<std::int64_t>& negative = histogram.negative();
  const auto positive = [&](std::size_t i) { return histogram.counts()[i] - negative[i]; };
  const std::int64_t below = std::accumulate(negative.begin(), negative.end(), std::int64_t{0});
  const double share = options.percentile / 100;
  return {-percentile_edge(histogram, share, histogram.total() - below,
                           [&](std::size_t i) { return negative[i]; }),
          percentile_edge(histogram, share, below, positive)};
}

CalibratedRange mse_range(const Histogram& histogram, const CalibratorOptions& options) {
  const CalibratedRange seen = minmax_range(histogram, options);
  if (seen.lo == seen.hi) return seen;
  CalibratedRange best = seen;
  const auto error_of = [&](const CalibratedRange& range) {
    const BinErrors errors = range_errors(histogram, range, options.bits);
    return errors.rounding + errors.saturation;
  };
  double least = error_of(best);
  for (bool moved = true; moved;) {
    moved = false;
    for (double CalibratedRange::*end : {&CalibratedRange::lo, &CalibratedRange::hi}) {
      for (int k = 0; k <= 100; ++k) {
        CalibratedRange range = best;
        range.*end = seen.*end * k / 100;
        if (range.lo == range.hi) continue;
        const double error = error_of(range);
        if (!(error < least)) continue;
        least = error;
        best = range;
        moved = true;
      }
    }
  }
  return best;
}

CalibratedRange sqnr_range(const Histogram& histogram, const CalibratorOptions& options) {
  const CalibratedRange seen = minmax_range(histogram, options);
  if (seen.lo == seen.hi) return seen;
  constexpr int kSteps = 17;
  const int codes = (1 << options.bits) - 1;
  const double top = codes;
  const double widest = (seen.hi - seen.lo) / top;
  const double zero = std::nearbyint(seen.lo / widest);
  const CalibratedRange whole = {widest * zero, widest * (zero + top)};
  const int distances = std::min(codes, 19);
  std::vector<CalibratedRange> candidates;
  for (int k = 1; k <= kSteps; ++k) {
    for (int i = 0; i <= distances; ++i) {
      const double offset = std::nearbyint(-top + top * i / distances);
      candidates.push_back(cut_to(whole, widest * k / 16, offset, top));
    }
    candidates.push_back(cut_to(whole, widest * k / 16, zero, top));
  }
  CalibratedRange best;
  double least = std::numeric_limits<double>::infinity();
  for (const CalibratedRange& range : candidates) {
    if (!(range.hi > range.lo)) continue;  // all of it lies beyond what was seen
    const BinErrors errors = range_errors(histogram, range, options.bits);
    const double cost = errors.rounding + options.gamma * errors.saturation;
    if (cost < least) {
      least = cost;
      best = range;
    }
  }
  return best;
}

const std::vector<Calibrator>& calibrators() {
  static const std::vector<Calibrator> all = {
#define NIBBLE_CALIBRATOR(name, function, range, description, of_integers) \
  {name, function, range, description, of_integers},
#include "quantize/calibrators/registry.def"
#undef NIBBLE_CALIBRATOR
  };
  return all;
}

const Calibrator& find_calibrator(std::string_view name) {
  std::vector<std::string> names;
  for (const Calibrator& calibrator : calibrators()) {
    if (calibrator.name == name) return calibrator;
    names.push_back(calibrator.name);
  }
  fail(ErrorKind::kUsage, "no calibrator is named '{}'{}", name, did_you_mean(name, names));
}

}  // namespace nibble
