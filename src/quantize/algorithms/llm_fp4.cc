// LLM-FP4 (arXiv 2310.16836): for each linear layer the split of the bits between exponent and
// mantissa and the range (which is the real-valued bias) of weights and of inputs, chosen in turns
// by the error of the layer's output. Ranges alone where elements are no floats.
#include <algorithm>
#include <limits>
#include <optional>

#include "quantize/algorithm.h"
#include "quantize/algorithms/clip_parameters.h"
#include "quantize/math/clip.h"
#include "quantize/math/float_search.h"

namespace nibble {
namespace {

constexpr std::size_t kSearchedRows = 512;  // of the samples, by which inputs' ranges are compared

Needs needs_of(const Parameters&) {
  Needs needs{CalibrationNeed::kHessian, Scope::kLinear};
  needs.samples = true;
  return needs;
}

// Some rows of the samples [n, channels], evenly spread.
std::vector<float> thinned(const std::vector<float>& samples, std::int64_t channels) {
  const auto width = static_cast<std::size_t>(channels);
  const std::size_t rows = samples.size() / width;
  const std::size_t stride = std::max<std::size_t>(1, rows / kSearchedRows);
  std::vector<float> result;
  for (std::size_t row = 0; row < rows; row += stride) {
    const auto at = samples.begin() + static_cast<std::ptrdiff_t>(row * width);
    result.insert(result.end(), at, at + static_cast<std::ptrdiff_t>(width));
  }
  return result;
}

class Search {
 public:
  Search(const SolverProblem& problem, const Parameters& parameters)
      : problem_(problem),
        formats_(float_splits(problem.format)),
        factors_{static_cast<int>(number(parameters, "steps")), number(parameters, "max_stretch"),
                 static_cast<int>(number(parameters, "shortlist"))} {}

  Solution run(int rounds) {
    choose_weights(problem_.hessian);
    const Hessian* seen = problem_.hessian;
    if (!searches_inputs() || seen == nullptr || seen->samples.empty()) {
      return {std::move(stored_), {}};
    }
    const std::vector<ActivationFormatPtr> candidates = float_splits(problem_.activations);
    const std::vector<float> searched = thinned(seen->samples, problem_.cols);
    ActivationFormatPtr inputs;
    for (int round = 0; round < rounds; ++round) {
      const Hessian weights =
          rounding_moments(decoded_, {problem_.w, decoded_.size()}, problem_.cols, problem_.pool);
      const ActivationFormatPtr before = inputs;
      inputs = best_rounding(candidates, searched, weights, factors_, problem_.pool);
      if (round > 0 && same(*before, *inputs)) break;
      std::vector<float> rounded(seen->samples.size());
      inputs->round(seen->samples.data(), problem_.cols,
                    static_cast<std::int64_t>(rounded.size()) / problem_.cols, problem_.cols,
                    rounded.data(), problem_.cols);
      const Hessian rounded_inputs =
          rounding_moments(rounded, seen->samples, problem_.cols, problem_.pool);
      choose_weights(&rounded_inputs);
    }
    return {std::move(stored_), {}, std::move(inputs)};
  }

 private:
  // Static ranges with zero points, and those by channel, are left to the calibrator.
  bool searches_inputs() const {
    if (problem_.activations == nullptr) return false;
    const ActivationDescriptor& d = problem_.activations->descriptor();
    return !d.is_static || (d.symmetric && d.scope == ActivationScope::kTensor);
  }

  static bool same(const ActivationFormat& a, const ActivationFormat& b) {
    return a.descriptor() == b.descriptor() && std::ranges::equal(a.fixed(), b.fixed());
  }

  void choose_weights(const Hessian* inputs) {
    std::vector<float> pull;
    if (inputs != nullptr) {
      pull = drift_pull(*inputs, problem_.w, problem_.rows, problem_.pool);
    }
    const ErrorMeasure measure{problem_.second_moment, inputs, pull};
    const ClipGrid grid{factors_.steps - 1, 1 - 1.0 / factors_.steps, false, factors_.max_stretch,
                        factors_.shortlist};
    double least = std::numeric_limits<double>::infinity();
    for (const FormatPtr& format : formats_) {
      QuantTensor stored = encode_clipped(format, problem_.w, problem_.rows, problem_.cols, measure,
                                          grid, problem_.pool);
      std::vector<float> decoded(static_cast<std::size_t>(problem_.rows * problem_.cols));
      decode_all(stored, decoded.data(), problem_.codec);
      const double error = error_of(measure, decoded);
      if (format != formats_.front() && !(error < least)) continue;
      least = error;
      stored_ = std::move(stored);
      decoded_ = std::move(decoded);
    }
  }

  // Of the layer's output.
  double error_of(const ErrorMeasure& measure, const std::vector<float>& decoded) const {
    if (measure.hessian == nullptr) {
      double sum = 0;
      for (std::int64_t row = 0; row < problem_.rows; ++row) {
        const std::int64_t at = row * problem_.cols;
        sum += group_error(measure, 0, problem_.w + at, decoded.data() + at, problem_.cols);
      }
      return sum;
    }
    std::vector<float> d(problem_.w, problem_.w + decoded.size());
    for (std::size_t i = 0; i < d.size(); ++i) d[i] -= decoded[i];
    return pulled_error(*measure.hessian, d, measure.pull, problem_.pool);
  }

  const SolverProblem& problem_;
  std::vector<FormatPtr> formats_;
  RangeFactors factors_;
  QuantTensor stored_;
  std::vector<float> decoded_;
};

Solution solve(const SolverProblem& problem, const Parameters& parameters) {
  return Search(problem, parameters).run(static_cast<int>(number(parameters, "rounds")));
}

}  // namespace

Algorithm make_llm_fp4() {
  Algorithm algorithm;
  algorithm.name = "llm_fp4";
  algorithm.summary = "choose exponent bits and range of weights and inputs by the output's error";
  algorithm.kind = StepKind::kSolver;
  algorithm.needs = {CalibrationNeed::kHessian, Scope::kLinear};
  algorithm.parameters = {
      {.name = "rounds",
       .value = 3.0,
       .help = "turns of inputs, then weights",
       .min = 1,
       .max = 20,
       .integer = true,
       .choices = {}},
      {.name = "steps",
       .value = 100.0,
       .help = "ranges tried up to the largest magnitude, evenly spaced",
       .min = 2,
       .max = 1000,
       .integer = true,
       .choices = {}},
      max_stretch_parameter(0.2),
      {.name = "shortlist",
       .value = 8.0,
       .help = "ranges compared by correlations, the best without them; 0: all",
       .min = 0,
       .max = 1000,
       .integer = true,
       .choices = {}},
  };
  algorithm.needs_of = needs_of;
  algorithm.chooses_formats = true;
  algorithm.solves_outside = true;
  algorithm.solve = solve;
  return algorithm;
}

}  // namespace nibble
