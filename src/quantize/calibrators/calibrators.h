// Clipping ranges of integer quantization, from a histogram.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quantize/calibrators/histogram.h"

namespace nibble {

struct CalibratorOptions {
  int bits = 8;               // 2 ... 8
  double percentile = 99.99;  // 0 < p <= 100
  double gamma = 3;           // weight of the saturation error (sqnr)
};

// The magnitude that maps to the largest code, 2^(bits-1) - 1; 0 when only zeros were counted.
// kUsage when nothing was counted or an option is outside its range.
using CalibrateFunction = double (*)(const Histogram&, const CalibratorOptions&);

double calibrate_minmax(const Histogram& histogram, const CalibratorOptions& options);
double calibrate_moving_average(const Histogram& histogram, const CalibratorOptions& options);

// The lower edge of the first bin up to whose end `percentile` % of the values lie (TensorRT).
double calibrate_percentile(const Histogram& histogram, const CalibratorOptions& options);

// KL divergence between the histogram cut after i bins, the tail added to the last, and the same
// bins merged into 2^(bits-1) levels and spread over the bins that are not empty; i from
// 2^(bits-1), or 128 if that is more. NVIDIA/TensorRT, tools/pytorch-quantization,
// calib/histogram.py: bin 0 counts like bin 1, borders of levels at equal real steps, the last of
// equal minima, and the upper edge of the last bin kept.
double calibrate_entropy(const Histogram& histogram, const CalibratorOptions& options);

// The same idea as in S. Migacz, "8-bit inference with TensorRT" (GTC 2017): levels of i /
// 2^(bits-1) whole bins, the last takes the remainder; the first of equal minima, and the middle of
// the first bin that is cut off.
double calibrate_entropy_migacz(const Histogram& histogram, const CalibratorOptions& options);

// The centre of the bin, from the 128th on, which as the range gives the bins' centres the least
// squared error; the first of equal minima.
double calibrate_mse(const Histogram& histogram, const CalibratorOptions& options);

// AIMET's TF-Enhanced for strict symmetric ranges (SqnrEncodingAnalyzer, its version 2): of k/100
// of the largest magnitude, k = 1 ... 101, the one with the least rounding error plus gamma times
// the saturation error over the bins' centres; the first of equal minima.
double calibrate_sqnr(const Histogram& histogram, const CalibratorOptions& options);

// A range of asymmetric quantization: lo maps to the code 0, hi to 2^bits - 1. lo <= 0 <= hi.
struct CalibratedRange {
  double lo = 0;
  double hi = 0;
};

// Errors as above; both ends are 0 when only zeros were counted.
using CalibrateRangeFunction = CalibratedRange (*)(const Histogram&, const CalibratorOptions&);

CalibratedRange minmax_range(const Histogram& histogram, const CalibratorOptions& options);
// Of the batches' least and greatest values.
CalibratedRange moving_average_range(const Histogram& histogram, const CalibratorOptions& options);
// On each side the magnitude that `percentile` % of all values do not pass there, as above.
CalibratedRange percentile_range(const Histogram& histogram, const CalibratorOptions& options);
// Ends at hundredths of the observed ones, chosen in turn for the least squared error of the bins'
// centres until neither moves.
CalibratedRange mse_range(const Histogram& histogram, const CalibratorOptions& options);
// TF-Enhanced for asymmetric ranges (aimet_torch/v2/quantization/encoding_analyzer.py): steps of
// k/16 of the observed one, k = 1 ... 17, with the observed zero point and up to 20 at equal
// distances, rounded, all cut to the observed range; the first of equal minima.
CalibratedRange sqnr_range(const Histogram& histogram, const CalibratorOptions& options);

struct Calibrator {
  std::string name;
  CalibrateFunction calibrate;
  CalibrateRangeFunction calibrate_range;  // null where only symmetric ranges are defined
  std::string description;
  bool of_integers;  // counts the errors of integers; others look at magnitudes alone
};

// The registry, in the order of registry.def.
const std::vector<Calibrator>& calibrators();
// kUsage with the nearest names when there is none of this name.
const Calibrator& find_calibrator(std::string_view name);

}  // namespace nibble
