// Sequential MSE: for each channel or group the largest weight, among evenly spaced candidates,
// with the least error of the layer's output, layer after layer on the inputs that the quantized
// layers before it give (AIMET's SeqMSE).
#include "quantize/algorithm.h"
#include "quantize/math/clip.h"

namespace nibble {
namespace {

bool follows_drift(const Parameters& parameters) {
  return text(parameters, "target") == "unquantized";
}

Needs needs_of(const Parameters& parameters) {
  Needs needs{CalibrationNeed::kHessian, Scope::kLinear};
  needs.by_site = true;
  needs.drift = follows_drift(parameters);
  return needs;
}

Solution solve(const SolverProblem& problem, const Parameters& parameters) {
  const int candidates = static_cast<int>(number(parameters, "candidates"));
  // candidates / candidates, ..., 1 / candidates of the range
  const ClipGrid grid{candidates - 1, 1 - 1.0 / candidates, false};
  std::vector<float> pull;
  if (problem.hessian != nullptr && follows_drift(parameters)) {
    pull = drift_pull(*problem.hessian, problem.w, problem.rows, problem.pool);
  }
  return {encode_clipped(problem.format, problem.w, problem.rows, problem.cols,
                         {problem.second_moment, problem.hessian, pull}, grid, problem.pool),
          {}};
}

}  // namespace

Algorithm make_sequential_mse() {
  Algorithm algorithm;
  algorithm.name = "sequential_mse";
  algorithm.summary = "the range of each group with the least error of the output, site by site";
  algorithm.kind = StepKind::kSolver;
  algorithm.needs = {CalibrationNeed::kHessian, Scope::kLinear};
  algorithm.parameters = {
      {.name = "candidates",
       .value = 20.0,
       .help = "ranges tried, evenly spaced up to the full one",
       .min = 2,
       .max = 1000,
       .integer = true,
       .choices = {}},
      {.name = "target",
       .value = std::string("quantized"),
       .help = "output wanted: of the unquantized model, or on the inputs that are there",
       .choices = {"quantized", "unquantized"}},
  };
  algorithm.needs_of = needs_of;
  algorithm.solve = solve;
  return algorithm;
}

}  // namespace nibble
