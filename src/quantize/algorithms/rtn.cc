// Rounding over the full range of every group.
#include "quantize/algorithm.h"

namespace nibble {
namespace {

Solution solve(const SolverProblem& problem, const Parameters& parameters) {
  Codec codec = problem.codec;
  if (text(parameters, "rounding") == "stochastic") {
    codec.rounding = Rounding::kStochastic;
    codec.seed ^= static_cast<std::uint64_t>(number(parameters, "seed")) * 0x9e3779b97f4a7c15u;
  }
  return {problem.format->encode(problem.w, problem.rows, problem.cols, codec), {}};
}

bool only_encodes(const Parameters& parameters) {
  return text(parameters, "rounding") == "nearest";
}

}  // namespace

Algorithm make_rtn() {
  Algorithm algorithm;
  algorithm.name = "rtn";
  algorithm.summary = "round over the full range of each group, to nearest or by chance";
  algorithm.kind = StepKind::kSolver;
  algorithm.parameters = {
      {.name = "rounding",
       .value = std::string("nearest"),
       .help =
           "of codes: to the nearest one, or to a neighbour by chance so that the mean is right",
       .choices = {"nearest", "stochastic"}},
      {.name = "seed",
       .value = 0.0,
       .help = "of stochastic rounding; the same seed gives the same codes",
       .max = 9007199254740991.0,
       .integer = true,
       .choices = {}}};
  algorithm.solves_all = true;
  algorithm.only_encodes = only_encodes;
  algorithm.solve = solve;
  return algorithm;
}

}  // namespace nibble
