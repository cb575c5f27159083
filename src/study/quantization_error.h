// The exact mean squared error of rounding a distribution to a grid of levels, and what minimises
// it.
#pragma once

#include <span>
#include <vector>

#include "study/distribution.h"

namespace nibble {

// E[(x - Q(x))^2], Q rounding to the nearest of the sorted `levels` times `scale` > 0 (values
// beyond the ends saturate).
double mean_squared_error(const Distribution& distribution, std::span<const double> levels,
                          double scale);

// log2(deviation / RMSE): an ideal quantizer of 2^b levels has b bits on a uniform distribution.
// Infinity when the error is 0, NaN for a constant.
double bits_of_accuracy(const Distribution& distribution, double mean_squared_error);

struct Clip {
  double clip = 0;  // the real value of the level 1
  double mean_squared_error = 0;
};

// The clip of the least error up to the largest magnitude (a float may gain by a range beyond it,
// where codes go unused; that is no clipping): a logarithmic grid, refined around its best point.
Clip best_clip(const Distribution& distribution, std::span<const double> levels);
// The clip that just covers the largest magnitude.
Clip min_max_clip(const Distribution& distribution, std::span<const double> levels);

// The same for integers with a zero point, integer_grid_around(): the clip is that of the end
// further from 0. The best is looked for over zero points, by rising resolution around the best so
// far, each with its best clip.
Clip best_zero_point_clip(const Distribution& distribution, int bits);
// The step that just covers both ends and 0, and the zero point nearest to where 0 then lies.
Clip min_max_zero_point_clip(const Distribution& distribution, int bits);

// The same for integers with a zero point (integer_grid_around()): the least error over zero
// points, looked for by ever finer steps around the best so far, each with its best clip; the step
// that just covers 0 and both ends.
Clip best_zero_point_clip(const Distribution& distribution, int bits);
Clip min_max_zero_point_clip(const Distribution& distribution, int bits);

// Levels of the least mean squared error that `count` levels can have (Lloyd 1982, Max 1960):
// each is the mean of its cell, each border the middle of two levels. Starts from companded levels
// (Panter and Dite 1951), over-relaxed since plain sweeps are slow for many levels.
std::vector<double> lloyd_max_levels(const Distribution& distribution, int count);

}  // namespace nibble
