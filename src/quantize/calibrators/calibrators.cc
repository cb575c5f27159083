#include "quantize/calibrators/calibrators.h"

#include <algorithm>
#include <cmath>
#include <limits>

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
};

BinErrors bin_errors(const Histogram& histogram, double range, int bits) {
  const double top = (1 << (bits - 1)) - 1;
  const double step = range / top;
  BinErrors errors;
  for (std::size_t i = 0; i < histogram.counts().size(); ++i) {
    const std::int64_t count = histogram.counts()[i];
    if (count == 0) continue;
    const double center = histogram.center(i);
    const double code = std::nearbyint(center / step);
    const double error = std::min(code, top) * step - center;
    (code > top ? errors.saturation : errors.rounding) +=
        static_cast<double>(count) * error * error;
  }
  return errors;
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
  const double wanted = options.percentile / 100;
  const auto total = static_cast<double>(histogram.total());
  std::int64_t below = 0;
  for (std::size_t i = 0; i < histogram.counts().size(); ++i) {
    below += histogram.counts()[i];
    if (static_cast<double>(below) / total >= wanted) return histogram.edge(i);
  }
  return histogram.edge(histogram.counts().size());
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

const std::vector<Calibrator>& calibrators() {
  static const std::vector<Calibrator> all = {
#define NIBBLE_CALIBRATOR(name, function, description, of_integers) \
  {name, function, description, of_integers},
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
