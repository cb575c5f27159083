#include "quantize/math/clip.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {
namespace {

struct Range {
  float lo = 0, hi = 0;
};

Range full_range(const float* w, std::int64_t count) {
  Range range;
  for (std::int64_t i = 0; i < count; ++i) {
    range.lo = std::min(range.lo, w[i]);
    range.hi = std::max(range.hi, w[i]);
  }
  return range;
}

// The best range met so far.
class Best {
 public:
  Best(const WeightDescriptor& descriptor, const float* w, std::int64_t count,
       std::span<const float> weight)
      : descriptor_(descriptor), w_(w), count_(count), weight_(weight) {}

  void try_range(const Range& range, double lo_factor, double hi_factor) {
    const AffineParams params = affine_params(descriptor_, static_cast<float>(range.lo * lo_factor),
                                              static_cast<float>(range.hi * hi_factor));
    const double error = weighted_error(descriptor_, params, w_, count_, weight_);
    if (tried_ && !(error < error_)) return;
    tried_ = true;
    error_ = error;
    params_ = params;
    lo_factor_ = lo_factor;
    hi_factor_ = hi_factor;
  }

  const AffineParams& params() const { return params_; }
  double lo_factor() const { return lo_factor_; }
  double hi_factor() const { return hi_factor_; }

 private:
  const WeightDescriptor& descriptor_;
  const float* w_;
  std::int64_t count_;
  std::span<const float> weight_;
  bool tried_ = false;
  double error_ = 0;
  AffineParams params_;
  double lo_factor_ = 1, hi_factor_ = 1;
};

}  // namespace

double weighted_error(const WeightDescriptor& descriptor, const AffineParams& params,
                      const float* w, std::int64_t count, std::span<const float> weight) {
  constexpr std::int64_t kChunk = 256;
  constexpr std::int64_t kLanes = 8;  // a fixed order of summation that still vectorises
  float rounded[kChunk];
  double total = 0;
  for (std::int64_t begin = 0; begin < count; begin += kChunk) {
    const std::int64_t n = std::min(kChunk, count - begin);
    affine_round_trip(descriptor, params, w + begin, n, rounded);
    float lanes[kLanes] = {};
    for (std::int64_t i = 0; i < n; ++i) {
      const float d = w[begin + i] - rounded[i];
      rounded[i] = d * d * (weight.empty() ? 1.0f : weight[static_cast<std::size_t>(begin + i)]);
    }
    const std::int64_t whole = n / kLanes * kLanes;
    for (std::int64_t i = 0; i < whole; i += kLanes) {
      for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += rounded[i + lane];
    }
    for (std::int64_t i = whole; i < n; ++i) lanes[i - whole] += rounded[i];
    for (const float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

AffineParams search_clip(const WeightDescriptor& descriptor, const float* w, std::int64_t count,
                         std::span<const float> weight, const ClipGrid& grid) {
  NIBBLE_CHECK(weight.empty() || static_cast<std::int64_t>(weight.size()) == count);
  const Range range = full_range(w, count);
  Best best(descriptor, w, count, weight);
  best.try_range(range, 1, 1);
  if (range.lo == 0 && range.hi == 0) return best.params();
  const auto factor = [&](int k) { return 1 - grid.max_shrink * k / grid.steps; };
  for (int k = 1; k <= grid.steps; ++k) best.try_range(range, factor(k), factor(k));
  if (!grid.independent || descriptor.scheme.symmetric) return best.params();
  const double hi = best.hi_factor();
  for (int k = 0; k <= grid.steps; ++k) best.try_range(range, factor(k), hi);
  const double lo = best.lo_factor();
  for (int k = 0; k <= grid.steps; ++k) best.try_range(range, lo, factor(k));
  return best.params();
}

}  // namespace nibble
