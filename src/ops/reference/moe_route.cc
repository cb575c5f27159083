// Reference router: softmax in double, then repeated selection of the largest that is left.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/reference/reference.h"

namespace nibble::reference {
namespace {

void route_row(const MoeRouteArgs& args, std::int64_t row) {
  const float* logits = args.logits + row * args.experts;
  const double largest = *std::max_element(logits, logits + args.experts);
  std::vector<double> probabilities(static_cast<std::size_t>(args.experts));
  double sum = 0;
  for (std::size_t e = 0; e < probabilities.size(); ++e) {
    sum += probabilities[e] = std::exp(static_cast<double>(logits[e]) - largest);
  }
  for (double& p : probabilities) p /= sum;

  std::vector<double> remaining = probabilities;
  std::int32_t* chosen = args.chosen + row * args.top_k;
  double chosen_sum = 0;
  for (std::int64_t k = 0; k < args.top_k; ++k) {
    const auto best = std::max_element(remaining.begin(), remaining.end());  // first of equals
    chosen[k] = static_cast<std::int32_t>(best - remaining.begin());
    chosen_sum += *best;
    *best = -1;
  }
  for (std::int64_t k = 0; k < args.top_k; ++k) {
    const double p = probabilities[static_cast<std::size_t>(chosen[k])];
    args.weights[row * args.top_k + k] = static_cast<float>(args.renormalize ? p / chosen_sum : p);
  }
}

}  // namespace

void moe_route(const MoeRouteArgs& args, ExecContext& context) {
  NIBBLE_CHECK(args.top_k <= args.experts);
  context.pool.parallel_for(args.rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) route_row(args, row);
  });
}

}  // namespace nibble::reference
