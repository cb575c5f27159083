// GPTQ (arXiv 2210.17323) for every format with scales, with its later refinements: an order of
// columns by activation under grids that are settled before ("static groups"), clipped grids, and
// asymmetric calibration (GPTAQ, arXiv 2504.02692).
#include "quantize/math/gptq.h"

#include <optional>

#include "base/error.h"
#include "base/memory.h"
#include "formats/trellis.h"
#include "quantize/algorithm.h"
#include "quantize/algorithms/clip_parameters.h"
#include "quantize/math/clip.h"
#include "quantize/math/refine.h"
#include "quantize/math/row_chunks.h"
#include "quantize/math/trellis.h"

namespace nibble {
namespace {

Needs needs_of(const Parameters& parameters) {
  const bool residual = number(parameters, "residual") > 0;
  return {CalibrationNeed::kHessian, Scope::kLinear, flag(parameters, "true_sequential"),
          residual || number(parameters, "asymmetry") > 0, residual};
}

DriftStrength drift_strength(const Parameters& parameters) {
  return {number(parameters, "asymmetry"), number(parameters, "residual")};
}

ColumnOrder order_of(const Parameters& parameters) {
  const std::string& name = text(parameters, "order");
  if (name == "activation") return ColumnOrder::kActivation;
  return name == "groups" ? ColumnOrder::kGroups : ColumnOrder::kStored;
}

// Grids of a matrix, or of the columns of one group in it.
WeightGrids choose_grids(const SolverProblem& problem, const Parameters& parameters, const float* w,
                         std::int64_t rows, std::int64_t begin, std::int64_t cols) {
  const int steps = static_cast<int>(number(parameters, "clip_steps"));
  if (steps == 0) return WeightGrids(problem.format, w, rows, cols);
  ErrorMeasure measure;
  if (!problem.second_moment.empty()) {
    measure.weight = problem.second_moment.subspan(static_cast<std::size_t>(begin),
                                                   static_cast<std::size_t>(cols));
  }
  if (text(parameters, "clip_error") == "output" && cols == problem.cols) {
    measure.hessian = problem.hessian;
  }
  return clipped_grids(
      problem.format, w, rows, cols, measure,
      {steps, number(parameters, "max_shrink"), false, number(parameters, "max_stretch")});
}

// Grids of the rows of w that are encoded at a time.
std::vector<WeightGrids> choose_grids_by_rows(const SolverProblem& problem,
                                              const Parameters& parameters, const float* w) {
  const std::int64_t count = rows_at_once(*problem.format, problem.rows);
  std::vector<std::optional<WeightGrids>> chosen(
      static_cast<std::size_t>((problem.rows + count - 1) / count));
  problem.pool.parallel_for(
      static_cast<std::int64_t>(chosen.size()), 1, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t part = first; part < last; ++part) {
          const std::int64_t begin = part * count;
          chosen[static_cast<std::size_t>(part)] =
              choose_grids(problem, parameters, w + begin * problem.cols,
                           std::min(count, problem.rows - begin), 0, problem.cols);
        }
      });
  std::vector<WeightGrids> result;
  for (auto& grids : chosen) result.push_back(std::move(*grids));
  return result;
}

Solution round_to_nearest(const SolverProblem& problem, const Parameters& parameters,
                          std::string note) {
  return {encode_by_rows(
              problem.format, problem.rows, problem.cols, problem.pool,
              [&](std::int64_t begin, std::int64_t end) {
                const float* w = problem.w + begin * problem.cols;
                return choose_grids(problem, parameters, w, end - begin, 0, problem.cols).encode(w);
              }),
          std::move(note)};
}

std::vector<float> copy_of_weights(const SolverProblem& problem) {
  const std::int64_t count = problem.rows * problem.cols;
  auto w = with_room<float>(static_cast<std::size_t>(count));
  w.assign(problem.w, problem.w + count);
  return w;
}

constexpr const char* kNotPositiveDefinite =
    "its Hessian is not positive definite under any damping; rounded to nearest";

void note_damping(const InverseFactor& factor, const Parameters& parameters, Solution& solution) {
  if (factor.damping > number(parameters, "damping")) {
    solution.note = fmt::format("its Hessian needed a damping of {:.3g}", factor.damping);
  }
}

// Trellises are coded in other coordinates, whose columns have one order.
Solution solve_trellis(const SolverProblem& problem, const Parameters& parameters) {
  const auto nearest = [&](std::string note) {
    return Solution{problem.format->encode(problem.w, problem.rows, problem.cols, problem.codec),
                    std::move(note)};
  };
  if (problem.hessian == nullptr) return nearest({});
  const Hessian hessian = rotated_hessian(*problem.hessian);
  const std::vector<std::int64_t> order = column_order(ColumnOrder::kStored, hessian, 1);
  const auto factor =
      inverse_factor(hessian, order, number(parameters, "damping"), problem.products);
  if (!factor) return nearest(kNotPositiveDefinite);
  std::vector<float> w = copy_of_weights(problem);
  trellis_rotate(w.data(), problem.rows, problem.cols);
  if (!hessian.drift.empty()) {
    follow_drift(hessian, *factor, order, drift_strength(parameters), problem.rows,
                 problem.products, w.data());
  }
  Codec codec = problem.codec;
  codec.pool = &problem.pool;
  Solution solution{encode_trellis(problem.format, on_host(*factor, problem.products), std::move(w),
                                   problem.rows, codec),
                    {}};
  note_damping(*factor, parameters, solution);
  return solution;
}

Solution solve(const SolverProblem& problem, const Parameters& parameters) {
  if (problem.format->descriptor().element.kind == ElementKind::kTrellis) {
    return solve_trellis(problem, parameters);
  }
  if (problem.hessian == nullptr) return round_to_nearest(problem, parameters, {});
  const Hessian& hessian = *problem.hessian;
  const Scheme& scheme = problem.format->descriptor().scheme;
  const std::int64_t length = problem.cols / groups_per_row(scheme, problem.cols);
  const std::vector<std::int64_t> order = column_order(order_of(parameters), hessian, length);
  const auto factor =
      inverse_factor(hessian, order, number(parameters, "damping"), problem.products);
  if (!factor) {
    return round_to_nearest(problem, parameters, kNotPositiveDefinite);
  }
  std::vector<float> w = copy_of_weights(problem);
  if (!hessian.drift.empty()) {
    follow_drift(hessian, *factor, order, drift_strength(parameters), problem.rows,
                 problem.products, w.data());
  }
  GptqSteps steps{*factor, order, static_cast<std::int64_t>(number(parameters, "block")), {}};
  if (order_of(parameters) == ColumnOrder::kStored && !flag(parameters, "static_groups") &&
      groups_are_independent(scheme)) {
    steps.refit = [&](const float* group, std::int64_t rows, std::int64_t begin,
                      std::int64_t cols) {
      return choose_grids(problem, parameters, group, rows, begin, cols);
    };
  }
  std::vector<WeightGrids> grids = choose_grids_by_rows(problem, parameters, w.data());
  const int passes = static_cast<int>(number(parameters, "refine"));
  const std::vector<float> wanted = passes > 0 ? w : std::vector<float>();
  gptq_rows(steps, grids, problem.products, w.data());
  const std::vector<float> moments =
      passes > 0 ? damped_moments(hessian, factor->damping) : std::vector<float>();
  const std::int64_t count = rows_at_once(*problem.format, problem.rows);
  Solution solution;
  solution.stored =
      encode_by_rows(problem.format, problem.rows, problem.cols, problem.pool,
                     [&](std::int64_t begin, std::int64_t end) {
                       WeightGrids& part = grids[static_cast<std::size_t>(begin / count)];
                       const std::int64_t at = begin * problem.cols;
                       NIBBLE_CHECK(part.rows() == end - begin);
                       if (passes > 0)
                         refine_rows(moments, passes, wanted.data() + at, part, w.data() + at);
                       return part.encode(w.data() + at);
                     });
  note_damping(*factor, parameters, solution);
  return solution;
}

}  // namespace

Algorithm make_gptq() {
  Algorithm algorithm;
  algorithm.name = "gptq";
  algorithm.summary = "round column by column and let later columns make up for the error";
  algorithm.kind = StepKind::kSolver;
  algorithm.needs = {CalibrationNeed::kHessian, Scope::kLinear};
  algorithm.parameters = {
      {.name = "order",
       .value = std::string("activation"),
       .help = "of columns: as stored, by activation, or by activation within groups",
       .choices = {"stored", "activation", "groups"}},
      {.name = "static_groups",
       .value = true,
       .help = "choose all scales before the first column (always so unless the order is stored)",
       .choices = {}},
      {.name = "damping",
       .value = 0.01,
       .help = "added to the diagonal, as a share of its mean; raised tenfold while that fails",
       .min = 0,
       .max = 1,
       .choices = {}},
      {.name = "block",
       .value = 128.0,
       .help = "columns after which the rest of the matrix is updated",
       .min = 1,
       .max = 4096,
       .integer = true,
       .choices = {}},
      clip_steps_parameter(
          "clip_steps", 0, 0,
          "narrower ranges tried for each group, as clip_search does; 0: the full range"),
      max_shrink_parameter(),
      max_stretch_parameter(0),
      clip_error_parameter(
          "clip_error",
          "by which ranges are chosen, as in clip_search (output: under static groups alone)"),
      {.name = "refine",
       .value = 0.0,
       .help = "rounds of improving single weights, then scales, under the same error",
       .min = 0,
       .max = 100,
       .integer = true,
       .choices = {}},
      {.name = "true_sequential",
       .value = false,
       .help = "calibrate each site after those before it in the block were quantized",
       .choices = {}},
      {.name = "asymmetry",
       .value = 0.0,
       .help = "share of the drift of the inputs that is made up for (GPTAQ)",
       .min = 0,
       .max = 1,
       .choices = {}},
      {.name = "residual",
       .value = 0.0,
       .help = "share of what is missing from the residual stream that is made up for",
       .min = 0,
       .max = 1,
       .choices = {}},
  };
  algorithm.needs_of = needs_of;
  algorithm.solve = solve;
  return algorithm;
}

}  // namespace nibble
