// Learned rounding by reconstruction of whole blocks (AutoRound, arXiv 2309.05516; in the manner of
// AdaRound, arXiv 2004.10568, and BRECQ, arXiv 2102.05426): offsets of the rounding and ends of the
// ranges follow the sign of the gradient of |block of the quantized model - block of the source|^2.
#include <algorithm>
#include <limits>
#include <memory>

#include "base/error.h"
#include "base/split_mix.h"
#include "model/grad/block_gradient.h"
#include "quantize/algorithm.h"
#include "quantize/math/grids.h"
#include "quantize/math/learned_rounding.h"

namespace nibble {
namespace {

int count_of(const Parameters& parameters, const char* name) {
  return static_cast<int>(number(parameters, name));
}

Needs needs_of(const Parameters& parameters) {
  Needs needs{CalibrationNeed::kActivations, Scope::kBlock};
  needs.trained_windows =
      std::int64_t{count_of(parameters, "iterations")} * count_of(parameters, "batch");
  return needs;
}

// Windows in a random order, each once before any comes again (Fisher-Yates).
class WindowOrder {
 public:
  WindowOrder(std::int64_t count, std::uint64_t seed) : seed_(seed) {
    for (std::int64_t i = 0; i < count; ++i) order_.push_back(i);
    next_ = order_.size();
  }

  std::int64_t next() {
    if (next_ == order_.size()) {
      for (std::size_t i = order_.size(); i > 1; --i) {
        std::swap(order_[i - 1],
                  order_[static_cast<std::size_t>(random_word(seed_, draws_++) % i)]);
      }
      next_ = 0;
    }
    return order_[next_++];
  }

 private:
  std::uint64_t seed_, draws_ = 0;
  std::vector<std::int64_t> order_;
  std::size_t next_ = 0;
};

class Training {
 public:
  Training(BlockProblem& problem, const Parameters& parameters)
      : problem_(problem),
        iterations_(count_of(parameters, "iterations")),
        batch_(count_of(parameters, "batch")),
        rate_(number(parameters, "rate") > 0 ? number(parameters, "rate") : 1.0 / iterations_),
        order_(problem.windows(),
               problem.seed + static_cast<std::uint64_t>(count_of(parameters, "seed"))) {
    for (Linear* linear : problem.weights.linears()) {
      const FormatPtr format = problem.format_of(*linear);
      if (format->is_float()) continue;
      const QuantTensor& weight = linear->weight.canonical;
      Learned& entry = learned_[linear];
      const float* w = weight.planes[0].data<float>();
      entry.w.assign(w, w + weight.rows * weight.cols);
      entry.rounding =
          std::make_unique<LearnedRounding>(format, entry.w.data(), weight.rows, weight.cols);
      entry.best = entry.rounding->parameters();
    }
  }

  std::map<const Linear*, Solution> run() {
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < iterations_; ++i) {
      WeightGradients gradients;
      const double loss = forward_and_backward(gradients);
      if (loss < least) {
        least = loss;
        for (auto& [linear, entry] : learned_) entry.best = entry.rounding->parameters();
      }
      const double rate = rate_ * (1 - static_cast<double>(i) / iterations_);
      for (auto& [linear, entry] : learned_) {
        const std::vector<float>& by_weights = gradients.at(linear);
        entry.seen |= std::ranges::any_of(by_weights, [](float v) { return v != 0; });
        entry.rounding->step(entry.rounding->gradients(by_weights, problem_.backend.pool()),
                             static_cast<float>(rate));
      }
    }
    return solutions();
  }

 private:
  struct Learned {
    std::vector<float> w;
    std::unique_ptr<LearnedRounding> rounding;
    LearnedRounding::Parameters best;
    bool seen = false;  // a gradient came here
  };

  // The mean squared error of one batch, and its gradient by every rounded weight.
  double forward_and_backward(WeightGradients& gradients) {
    for (auto& [linear, entry] : learned_) {
      Linear& changed = *linear;
      entry.rounding->rounded(changed.weight.canonical.planes[0].mutable_data<float>(),
                              problem_.backend.pool());
      gradients[linear].resize(entry.w.size());
    }
    prepare_layer(problem_.weights, problem_.backend);
    std::vector<float> inputs, targets;
    const auto window = static_cast<std::size_t>(problem_.context * problem_.spec.hidden);
    for (std::int64_t i = 0; i < std::min<std::int64_t>(batch_, problem_.windows()); ++i) {
      const auto at = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(order_.next()) * window);
      const auto count = static_cast<std::ptrdiff_t>(window);
      inputs.insert(inputs.end(), problem_.inputs.begin() + at,
                    problem_.inputs.begin() + at + count);
      targets.insert(targets.end(), problem_.targets.begin() + at,
                     problem_.targets.begin() + at + count);
    }
    Tape tape;
    GradContext context{tape, problem_.backend, gradients};
    GradNode& output = differentiable_block(context, problem_.spec, problem_.layer,
                                            problem_.weights, inputs, problem_.context);
    double sum = 0;
    const double share = 2 / static_cast<double>(targets.size());
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const double d = static_cast<double>(output.value[i]) - static_cast<double>(targets[i]);
      sum += d * d;
      targets[i] = static_cast<float>(share * d);
    }
    tape.backward(output, targets);
    return sum / static_cast<double>(targets.size());
  }

  std::map<const Linear*, Solution> solutions() {
    std::map<const Linear*, Solution> result;
    for (auto& [linear, entry] : learned_) {
      Linear& changed = *linear;
      std::ranges::copy(entry.w, changed.weight.canonical.planes[0].mutable_data<float>());
      entry.rounding->set_parameters(std::move(entry.best));
      result[linear] = {entry.rounding->encode(problem_.backend.pool()),
                        entry.seen ? "" : "no token came here; rounded to nearest"};
    }
    prepare_layer(problem_.weights, problem_.backend);
    return result;
  }

  BlockProblem& problem_;
  int iterations_, batch_;
  double rate_;
  WindowOrder order_;
  std::map<Linear*, Learned> learned_;
};

void check_formats(const BlockProblem& problem) {
  for (const Linear* linear : problem.weights.linears()) {
    const FormatPtr format = problem.format_of(*linear);
    if (format->is_float()) continue;
    if (format->is_affine() && groups_are_independent(format->descriptor().scheme)) continue;
    fail(ErrorKind::kUnsupported,
         "module '{}': autoround learns the rounding of integers by channel or group, not of {}; "
         "take 'gptq'",
         linear->module, format->name());
  }
}

std::map<const Linear*, Solution> solve_block(BlockProblem& problem, const Parameters& parameters) {
  require_gradients(problem.backend);
  check_formats(problem);
  return Training(problem, parameters).run();
}

// Of one linear alone, as a search over models needs it: where learning begins.
Solution solve(const SolverProblem& problem, const Parameters&) {
  return {problem.format->encode(problem.w, problem.rows, problem.cols, problem.codec), {}};
}

}  // namespace

Algorithm make_autoround() {
  Algorithm algorithm;
  algorithm.name = "autoround";
  algorithm.summary = "learn rounding and ranges by the gradient of each block's output error";
  algorithm.kind = StepKind::kSolver;
  algorithm.needs = {CalibrationNeed::kActivations, Scope::kBlock};
  const auto count = [](std::string name, double value, double max, std::string help) {
    return ParameterSpec{.name = std::move(name),
                         .value = value,
                         .help = std::move(help),
                         .min = 1,
                         .max = max,
                         .integer = true,
                         .choices = {}};
  };
  algorithm.parameters = {
      count("iterations", 200, 100000, "steps of SignSGD for each block"),
      count("batch", 8, 1024, "windows of the calibration text a step"),
      {.name = "rate",
       .value = 0.0,
       .help = "of the first step, falling to 0 linearly; 0: 1 / iterations",
       .min = 0,
       .max = 1,
       .choices = {}},
      {.name = "seed",
       .value = 1.0,
       .help = "of the order of windows",
       .min = 0,
       .max = 1e9,
       .integer = true,
       .choices = {}},
  };
  algorithm.needs_of = needs_of;
  algorithm.solve = solve;
  algorithm.solve_block = solve_block;
  return algorithm;
}

}  // namespace nibble
