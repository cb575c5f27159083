// Smoothing of one site: what the algorithms that differ in how they choose its scales share.
#pragma once

#include <span>
#include <vector>

#include "quantize/algorithm.h"

namespace nibble {

// Whether a norm stands in front of the site, as in the method of SmoothQuant.
inline bool is_norm_site(SiteKind kind) {
  return kind == SiteKind::kAttnIn || kind == SiteKind::kMlpIn;
}

// max |w| of the columns that read each channel of a site; where a linear produces it, the same for
// all channels of one of its rows.
std::vector<float> column_magnitudes(const Site& site, ThreadPool& pool);

// Scales near `s` that leave nothing for a norm in front of the site to round when it is stored.
std::vector<float> snap_to_producer(const TransformBlock& block, const Site& site,
                                    std::vector<float> s);

// apply_smoothing(), at once or deferred; statistics follow.
void divide_site(TransformBlock& block, Site& site, std::span<const float> s);

// Divides each channel of a site that has a producer by |x|^alpha / |w|^(1 - alpha), |x| its
// largest value or its root mean square (SmoothQuant: arXiv 2211.10438, equation 4). Nothing where
// no token came.
void smooth_site(TransformBlock& block, Site& site, bool root_mean_square, double alpha);

}  // namespace nibble
