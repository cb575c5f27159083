#include "ops/route_scores.h"

#include <algorithm>
#include <cmath>

namespace nibble {

std::vector<double> route_scores(const MoeRouteArgs& args, const float* logits) {
  std::vector<double> scores(logits, logits + args.experts);
  if (args.score == RouteScore::kSigmoid) {
    for (double& s : scores) s = 1 / (1 + std::exp(-s));
    return scores;
  }
  const double largest = *std::ranges::max_element(scores);
  double sum = 0;
  for (double& s : scores) sum += s = std::exp(s - largest);
  for (double& s : scores) s /= sum;
  return scores;
}

}  // namespace nibble
