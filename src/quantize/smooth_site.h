// Smoothing of one site by what calibration saw (SmoothQuant: arXiv 2211.10438, equation 4), for
// the algorithms that differ in how its strength is chosen.
#pragma once

#include "quantize/algorithm.h"

namespace nibble {

// Whether a norm stands in front of the site, as in the method of the paper.
inline bool is_norm_site(SiteKind kind) {
  return kind == SiteKind::kAttnIn || kind == SiteKind::kMlpIn;
}

// Divides each channel of a site that has a producer by |x|^alpha / |w|^(1 - alpha), |x| its
// largest value or its root mean square; statistics follow. Nothing where no token came.
void smooth_site(TransformBlock& block, Site& site, bool root_mean_square, double alpha);

}  // namespace nibble
