// Round to nearest: the full range of every group.
#include "quantize/algorithm.h"
#include "quantize/math/row_chunks.h"

namespace nibble {
namespace {

Solution solve(const SolverProblem& problem, const Parameters&) {
  return {encode_by_rows(problem.format, problem.rows, problem.cols, problem.pool,
                         [&](std::int64_t begin, std::int64_t end) {
                           return problem.format->encode(problem.w + begin * problem.cols,
                                                         end - begin, problem.cols);
                         }),
          {}};
}

}  // namespace

Algorithm make_rtn() {
  Algorithm algorithm;
  algorithm.name = "rtn";
  algorithm.summary = "round to nearest over the full range of each group";
  algorithm.kind = StepKind::kSolver;
  algorithm.solve = solve;
  return algorithm;
}

}  // namespace nibble
