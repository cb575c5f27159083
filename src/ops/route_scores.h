// Scores of experts, in float64: what both directions of routing go by.
#pragma once

#include <vector>

#include "ops/args.h"

namespace nibble {

// Of one row of router logits, [args.experts], as args.score says.
std::vector<double> route_scores(const MoeRouteArgs& args, const float* logits);

}  // namespace nibble
