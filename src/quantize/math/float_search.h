// What the search of LLM-FP4 (arXiv 2310.16836) is made of: small floats of one size that split
// their bits differently, and the error that rounding the two sides of a product leaves in it.
//
// The sides are alike. With x^ and w^ the rounded x and w, the output's error is
//   sum (x w^T - x^ w^T^)^2 = d M d + 2 pull . d + (what d has no part in),
// d = w - w^ under M and the drift of the inputs (x^ for x), or d = x - x^ under those of the
// weights (w^ for w).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "formats/activation_format.h"
#include "formats/format.h"
#include "quantize/math/hessian.h"

namespace nibble {

// The format itself, then those of as many bits with other exponents, all codes finite. Only the
// format itself where its elements are no floats, or its scales are no plain ones.
std::vector<FormatPtr> float_splits(const FormatPtr& format);
std::vector<ActivationFormatPtr> float_splits(const ActivationFormatPtr& format);

// Moments of the rows of `rounded` and their drift from those of `exact`, both [rows, channels].
// Does not depend on the number of threads.
Hessian rounding_moments(std::span<const float> rounded, std::span<const float> exact,
                         std::int64_t channels, ThreadPool& pool);

struct RangeFactors {
  int steps = 100;         // candidates from 1 / steps of the largest magnitude to all of it
  double max_stretch = 0;  // and above it, as far apart
  int shortlist = 8;       // of each format, compared by correlations; 0: all
};

// The rounding of x [rows, weights.channels] among `formats`, of static ones under each of the
// candidate scales, with the least error of the product with weights of these rounding_moments().
// Complete. The first one on a tie.
ActivationFormatPtr best_rounding(std::span<const ActivationFormatPtr> formats,
                                  std::span<const float> x, const Hessian& weights,
                                  const RangeFactors& factors, ThreadPool& pool);

}  // namespace nibble
