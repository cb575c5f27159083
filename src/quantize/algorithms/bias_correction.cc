// Bias correction (arXiv 1906.04721, 4.2; AIMET), empirical: after a block was rounded, the bias of
// each linear takes up what the mean of its output lost.
#include "quantize/math/bias_correction.h"

#include "quantize/algorithm.h"

namespace nibble {
namespace {

std::vector<float> correct(const CorrectionProblem& problem, const Parameters&) {
  return mean_output_error(problem.w, problem.stored, problem.rows, problem.wanted_mean,
                           problem.mean, problem.pool);
}

}  // namespace

Algorithm make_bias_correction() {
  Algorithm algorithm;
  algorithm.name = "bias_correction";
  algorithm.summary = "put what rounding shifts the mean of each output by into the bias";
  algorithm.kind = StepKind::kCorrection;
  algorithm.needs = {CalibrationNeed::kActivations, Scope::kLinear};
  algorithm.correct = correct;
  return algorithm;
}

}  // namespace nibble
