// Round to nearest: the full range of every group.
#include <algorithm>

#include "quantize/algorithm.h"
#include "quantize/groups.h"

namespace nibble {
namespace {

void solve(const SolverProblem& problem, const Parameters&, std::span<AffineParams> params) {
  for_each_group(problem, [&](std::int64_t index, const float* w, std::int64_t count, auto) {
    const auto [lo, hi] = std::minmax_element(w, w + count);
    params[static_cast<std::size_t>(index)] = affine_params(problem.descriptor, *lo, *hi);
  });
}

QuantTensor encode(const Format& format, const SolverProblem& problem, const Parameters&) {
  return format.encode(problem.w, problem.rows, problem.cols);
}

}  // namespace

Algorithm make_rtn() {
  Algorithm algorithm;
  algorithm.name = "rtn";
  algorithm.summary = "round to nearest over the full range of each group";
  algorithm.kind = StepKind::kSolver;
  algorithm.solve = solve;
  algorithm.encode = encode;
  return algorithm;
}

}  // namespace nibble
