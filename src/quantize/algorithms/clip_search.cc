// Clip search: for each group the range with the least error of the layer's output.
#include "quantize/algorithm.h"
#include "quantize/algorithms/clip_parameters.h"
#include "quantize/math/clip.h"

namespace nibble {
namespace {

Needs needs_of(const Parameters& parameters) {
  const bool by_output = text(parameters, "error") == "output";
  return {by_output ? CalibrationNeed::kHessian : CalibrationNeed::kStatistics, Scope::kLinear};
}

Solution solve(const SolverProblem& problem, const Parameters& parameters) {
  const ClipGrid grid{static_cast<int>(number(parameters, "steps")),
                      number(parameters, "max_shrink"), flag(parameters, "independent"),
                      number(parameters, "max_stretch")};
  const bool by_output = text(parameters, "error") == "output";
  const ErrorMeasure measure{problem.second_moment, by_output ? problem.hessian : nullptr};
  return {encode_clipped(problem.format, problem.w, problem.rows, problem.cols, measure, grid,
                         problem.pool),
          {}};
}

}  // namespace

Algorithm make_clip_search() {
  Algorithm algorithm;
  algorithm.name = "clip_search";
  algorithm.summary = "narrow each group's range, weighted by the second moment of the input";
  algorithm.kind = StepKind::kSolver;
  algorithm.needs = {CalibrationNeed::kStatistics, Scope::kLinear};
  algorithm.parameters = {
      clip_steps_parameter("steps", 20, 1, "factors tried below the full range"),
      max_shrink_parameter(),
      max_stretch_parameter(0),
      {.name = "independent",
       .value = false,
       .help = "also narrow the two ends by different factors",
       .choices = {}},
      clip_error_parameter(
          "error",
          "of the output, as if channels were uncorrelated, or as the group alone causes it"),
  };
  algorithm.needs_of = needs_of;
  algorithm.solve = solve;
  return algorithm;
}

}  // namespace nibble
