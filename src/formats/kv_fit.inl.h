// The fit of an int4 row's scale and offset, from sums over the row. Included inside an anonymous
// namespace by everything that encodes such rows, so that all make the same bits: whoever includes
// it defines KV_FIT_FUNCTION as what stands in front of a function. Plain C++ without a library, in
// arithmetic whose result depends neither on the order of the sums nor on multiply-adds being one
// operation or two.
//
// The row's values are counted from its least one, in 64ths of a step of its full range: whole
// numbers p of [0, 960]. Tried are ranges that leave out 0, 26 or 52 of these units at either end;
// each gives a code c for every value,
//   c = clamp(round((p - below) * (15 / (960 - below - above))), 0, 15).
// With the scale and offset of least squares for its codes, a range's squared error is what the
// codes do not explain; the range whose codes explain most gives the row its scale and offset. Sums
// are of at most 1024 values, so whole numbers below 2^24, which float32 holds.

constexpr int kFitMost = 1024;  // values; longer rows keep their full range
constexpr int kFitRanges = 9;
constexpr float kFitUnits = 64;  // to a step
constexpr float kFitTop = 15;    // of codes

struct FitRange {
  float below;
  float to_code;
};

// The range number `i` of kFitRanges; 0 is the full one.
KV_FIT_FUNCTION FitRange fit_range(int i) {
  constexpr float kCut = 26;
  const float below = kCut * static_cast<float>(i / 3);
  const float above = kCut * static_cast<float>(i % 3);
  return {below, kFitTop / (kFitTop * kFitUnits - below - above)};
}

// Over the values of a row; of their positions p, and of a range's codes c.
struct FitSums {
  float count;
  float positions;
  float codes;
  float squares;   // of codes
  float products;  // of codes and positions
};

// count^2 times their covariance, and times the variance of codes; exact.
KV_FIT_FUNCTION double fit_covariance(const FitSums& s) {
  return static_cast<double>(s.count) * static_cast<double>(s.products) -
         static_cast<double>(s.positions) * static_cast<double>(s.codes);
}
KV_FIT_FUNCTION double fit_variance(const FitSums& s) {
  return static_cast<double>(s.count) * static_cast<double>(s.squares) -
         static_cast<double>(s.codes) * static_cast<double>(s.codes);
}

// Of the positions' variance what the codes explain, up to a factor that all ranges share.
KV_FIT_FUNCTION float fit_explained(const FitSums& s) {
  const auto covariance = static_cast<float>(fit_covariance(s));
  const auto variance = static_cast<float>(fit_variance(s));
  return variance > 0 ? covariance * covariance / variance : 0.0f;
}

struct FitScale {
  float scale;
  float offset;
  float to_code;  // 1 / scale
};

// Least squares for the codes of the best range; `full` where float32 cannot say that.
KV_FIT_FUNCTION FitScale fit_scale(const FitSums& s, const FitScale& full) {
  constexpr float kLargest = 3.40282347e38f;
  const float slope =
      static_cast<float>(fit_covariance(s)) / static_cast<float>(fit_variance(s));  // units a code
  const auto start =
      static_cast<float>((static_cast<double>(s.positions) -
                          static_cast<double>(slope) * static_cast<double>(s.codes)) /
                         static_cast<double>(s.count));
  FitScale fit;
  fit.scale = full.scale * (slope / kFitUnits);
  fit.offset =
      static_cast<float>(static_cast<double>(full.offset) +
                         static_cast<double>(full.scale) * static_cast<double>(start / kFitUnits));
  fit.to_code = 1 / fit.scale;
  const double top = static_cast<double>(fit.offset) +
                     static_cast<double>(kFitTop) * static_cast<double>(fit.scale);
  const auto largest = static_cast<double>(kLargest);
  const bool sayable = fit.to_code <= kLargest && fit.offset >= -kLargest && top <= largest;
  return sayable ? fit : full;
}
