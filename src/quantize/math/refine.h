// Rounded weights made better under the error of the output, one weight or one scale at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "quantize/math/grids.h"
#include "quantize/math/hessian.h"

namespace nibble {

// Moments of the input, [channels, channels], with `damping` times their mean diagonal added to it;
// channels that were never used count as uncorrelated ones of the mean size.
std::vector<float> damped_moments(const Hessian& hessian, double damping);

// Lowers tr((q - w) M (q - w)^T) for rows q of weights on their grids, [grids.rows(), cols]:
// `passes` times coordinate descent, each weight to the value of its grid that is best while all
// others stay (QuantEase, arXiv 2309.01885), and then, for integers, the scales of each row to
// those of least squares for the codes as they are. Never raises it. Rows do not depend on each
// other.
void refine_rows(const std::vector<float>& moments, int passes, const float* w, WeightGrids& grids,
                 float* q);

}  // namespace nibble
