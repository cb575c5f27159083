// Clip search: for each group the range with the least sum_j E[x_j^2] (w_j - w'_j)^2.
#include "quantize/algorithm.h"
#include "quantize/groups.h"
#include "quantize/math/clip.h"

namespace nibble {
namespace {

void solve(const SolverProblem& problem, const Parameters& parameters,
           std::span<AffineParams> params) {
  const ClipGrid grid{static_cast<int>(number(parameters, "steps")),
                      number(parameters, "max_shrink"), flag(parameters, "independent")};
  for_each_group(problem, [&](std::int64_t index, const float* w, std::int64_t count,
                              std::span<const float> second_moment) {
    params[static_cast<std::size_t>(index)] =
        search_clip(problem.descriptor, w, count, second_moment, grid);
  });
}

}  // namespace

Algorithm make_clip_search() {
  Algorithm algorithm;
  algorithm.name = "clip_search";
  algorithm.summary = "narrow each group's range, weighted by the second moment of the input";
  algorithm.kind = StepKind::kSolver;
  algorithm.needs = {CalibrationNeed::kStatistics, Scope::kLinear};
  algorithm.parameters = {
      {.name = "steps",
       .value = 20.0,
       .help = "factors tried below the full range",
       .min = 1,
       .max = 1000,
       .integer = true,
       .choices = {}},
      {.name = "max_shrink",
       .value = 0.3,
       .help = "largest share of the range that is cut",
       .min = 0.01,
       .max = 0.99,
       .choices = {}},
      {.name = "independent",
       .value = false,
       .help = "also narrow the two ends by different factors",
       .choices = {}},
  };
  algorithm.solve = solve;
  return algorithm;
}

}  // namespace nibble
