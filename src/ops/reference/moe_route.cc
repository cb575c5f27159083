// Reference router: scores in double, then repeated selection of the largest that is left.
#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "ops/reference/reference.h"
#include "ops/route_scores.h"

namespace nibble::reference {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

// The index of the first largest value, which is taken out.
std::size_t take_best(std::vector<double>& values) {
  const auto best = std::ranges::max_element(values);
  const auto index = static_cast<std::size_t>(best - values.begin());
  *best = kNever;
  return index;
}

// Takes the experts of all but the best groups out.
void keep_best_groups(const MoeRouteArgs& args, std::vector<double>& values) {
  const auto size = static_cast<std::size_t>(args.experts / args.groups);
  std::vector<double> totals;
  for (std::size_t begin = 0; begin < values.size(); begin += size) {
    std::vector<double> group(values.begin() + static_cast<std::ptrdiff_t>(begin),
                              values.begin() + static_cast<std::ptrdiff_t>(begin + size));
    std::ranges::sort(group, std::ranges::greater{});
    totals.push_back(group[0] + (size > 1 ? group[1] : 0));
  }
  std::vector<bool> kept(totals.size(), false);
  for (std::int64_t i = 0; i < args.top_groups; ++i) kept[take_best(totals)] = true;
  for (std::size_t e = 0; e < values.size(); ++e) {
    if (!kept[e / size]) values[e] = kNever;
  }
}

void route_row(const MoeRouteArgs& args, std::int64_t row) {
  const std::vector<double> scores = route_scores(args, args.logits + row * args.experts);
  std::vector<double> remaining = scores;
  for (std::size_t e = 0; e < args.choice_bias.size(); ++e) {
    remaining[e] += static_cast<double>(args.choice_bias[e]);
  }
  if (args.groups > 1) keep_best_groups(args, remaining);

  std::int32_t* chosen = args.chosen + row * args.top_k;
  double chosen_sum = 0;
  for (std::int64_t k = 0; k < args.top_k; ++k) {
    const std::size_t best = take_best(remaining);
    chosen[k] = static_cast<std::int32_t>(best);
    chosen_sum += scores[best];
  }
  const double divisor = args.renormalize ? chosen_sum : 1;
  for (std::int64_t k = 0; k < args.top_k; ++k) {
    const double weight = scores[static_cast<std::size_t>(chosen[k])] / divisor;
    args.weights[row * args.top_k + k] =
        static_cast<float>(weight * static_cast<double>(args.scale));
  }
}

void check(const MoeRouteArgs& args) {
  NIBBLE_CHECK(args.top_k <= args.experts);
  NIBBLE_CHECK(args.choice_bias.empty() || std::ssize(args.choice_bias) == args.experts);
  NIBBLE_CHECK(args.groups >= 1 && args.experts % args.groups == 0);
  NIBBLE_CHECK(args.groups == 1 || (args.top_groups <= args.groups &&
                                    args.top_k <= args.experts / args.groups * args.top_groups));
}

}  // namespace

void moe_route(const MoeRouteArgs& args, ExecContext& context) {
  check(args);
  context.pool.parallel_for(args.rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) route_row(args, row);
  });
}

}  // namespace nibble::reference
