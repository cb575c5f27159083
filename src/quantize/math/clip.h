// Clipping: a group's range [lo, hi] may be narrowed so that most weights get a finer step while
// the few at the ends saturate.
#pragma once

#include <cstdint>
#include <span>

#include "formats/affine.h"

namespace nibble {

// Factors tried: 1 - k * max_shrink / steps, k = 0 ... steps. `independent` refines the common
// factor of both ends by one more pass over each end alone (asymmetric formats).
struct ClipGrid {
  int steps = 20;
  double max_shrink = 0.3;
  bool independent = false;
};

// sum_j weight_j * (w_j - w'_j)^2 over one group, w' = w after a round trip under params. An empty
// `weight` means 1.
double weighted_error(const WeightDescriptor& descriptor, const AffineParams& params,
                      const float* w, std::int64_t count, std::span<const float> weight);

// The parameters of the tried range with the least weighted_error. The full range is tried first
// and kept on a tie, so the error is never above that of affine_params(lo, hi).
AffineParams search_clip(const WeightDescriptor& descriptor, const float* w, std::int64_t count,
                         std::span<const float> weight, const ClipGrid& grid);

}  // namespace nibble
