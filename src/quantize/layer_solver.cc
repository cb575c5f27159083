#include "quantize/layer_solver.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "quantize/correct_biases.h"

namespace nibble {
namespace {

// Sums of squares over a row of a weight, with errors and weights of the output beside them.
struct RowErrors {
  double error = 0, norm = 0, output_error = 0, output_norm = 0;

  void add(const RowErrors& other) {
    error += other.error;
    norm += other.norm;
    output_error += other.output_error;
    output_norm += other.output_norm;
  }
};

RowErrors row_errors(const float* w, std::span<const float> decoded,
                     std::span<const float> second_moment) {
  RowErrors sums;
  for (std::size_t j = 0; j < decoded.size(); ++j) {
    const double value = static_cast<double>(w[j]);
    const double d = value - static_cast<double>(decoded[j]);
    sums.error += d * d;
    sums.norm += value * value;
    if (second_moment.empty()) continue;
    const double e = static_cast<double>(second_moment[j]);
    sums.output_error += e * d * d;
    sums.output_norm += e * value * value;
  }
  return sums;
}

// The two relative errors of a stored weight against the one that was quantized.
ModuleReport measure(const PlannedModule& module, const float* w, const QuantTensor& stored,
                     std::span<const float> second_moment, const Codec& codec) {
  ModuleReport report{module.module, stored.format->name(), "", module.rows, module.cols, 0, {}};
  if (module.activations != nullptr) report.activations = module.activations->name();
  std::vector<RowErrors> rows(static_cast<std::size_t>(module.rows));
  const std::int64_t block = stored.format->row_block(), cols = module.cols;
  codec.for_rows(
      (module.rows + block - 1) / block, block * cols, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> decoded(static_cast<std::size_t>(block * cols));
        for (std::int64_t first = begin * block; first < std::min(end * block, module.rows);
             first += block) {
          const std::int64_t count = std::min(block, module.rows - first);
          stored.format->decode_rows(stored, first, count, decoded.data(), *codec.spans);
          for (std::int64_t row = 0; row < count; ++row) {
            rows[static_cast<std::size_t>(first + row)] = row_errors(
                w + (first + row) * cols,
                {decoded.data() + row * cols, static_cast<std::size_t>(cols)}, second_moment);
          }
        }
      });
  RowErrors sums;
  for (const RowErrors& row : rows) sums.add(row);
  report.weight_error = sums.norm > 0 ? std::sqrt(sums.error / sums.norm) : 0;
  if (!second_moment.empty()) {
    report.output_error =
        sums.output_norm > 0 ? std::sqrt(sums.output_error / sums.output_norm) : 0;
  }
  return report;
}

std::set<std::string> site_names(const std::map<const Linear*, std::string>& names,
                                 const std::vector<Linear*>& linears) {
  std::set<std::string> result;
  for (const Linear* linear : linears) result.insert(names.at(linear));
  return result;
}

}  // namespace

LayerSolver::LayerSolver(const Job& job, std::int64_t done)
    : job_(job),
      needs_(job.options.recipe.solver().needs()),
      static_inputs_(job.plan.static_inputs()),
      watches_ranges_(static_inputs_ != nullptr &&
                      needs_histograms(job.calibration, *static_inputs_)),
      first_layer_(done) {
  const bool needs_stream = job.options.recipe.needs_stream() || watches_ranges_;
  if (!needs_stream || done == job.spec.layers) return;
  first_layer_ = std::min(done, CalibrationStream::saved(job));
  stream_ = std::make_unique<CalibrationStream>(
      job, first_layer_,
      needs_.drift || needs_.calibration == CalibrationNeed::kActivations ||
          job.options.recipe.corrects());
}

std::vector<Stage> LayerSolver::stages(LayerWeights& weights) const {
  return needs_.by_site ? stages_by_site(job_.spec, weights)
                        : std::vector<Stage>{weights.linears()};
}

void LayerSolver::transform(std::int64_t layer, const RecipePoint& point,
                            LayerStatistics& statistics, LayerWeights& weights) {
  LayerHessians hessians;
  if (job_.options.recipe.transforms_need_hessians()) {
    const auto names = statistics_names(sites(job_.spec, weights));
    hessians = stream_->observe(layer, weights, nullptr, site_names(names, weights.linears()));
  }
  transform_layer(transform_context(job_), point, hessians, weights, statistics);
  prepare_layer(weights, job_.backend);
}

SolvedLinear LayerSolver::report_one(std::int64_t layer, const Linear& linear,
                                     std::span<const float> second_moment,
                                     Solution solution) const {
  const PlannedModule& module = job_.plan.find(linear.module);
  const float* w = linear.weight.canonical.planes[0].data<float>();
  if (!solution.note.empty()) {
    job_.note(fmt::format("layer {}, {}: {}", layer, linear.module, solution.note));
  }
  SolvedLinear result{&linear, std::move(solution.stored), std::move(solution.activations), {}};
  result.report = measure(module, w, result.stored, second_moment, job_.backend.codec());
  if (result.activations != nullptr) result.report.activations = result.activations->name();
  return result;
}

SolvedLinear LayerSolver::solve_one(std::int64_t layer, const Linear& linear,
                                    std::span<const float> second_moment,
                                    const Hessian* hessian) const {
  const PlannedModule& module = job_.plan.find(linear.module);
  const float* w = linear.weight.canonical.planes[0].data<float>();
  const Codec codec = job_.backend.codec();
  return report_one(layer, linear, second_moment,
                    module.format->is_float()
                        ? Solution{module.format->encode(w, module.rows, module.cols, codec), {}}
                        : solve_linear(job_.options.recipe, {module.format, module.activations},
                                       linear, second_moment, hessian, codec, job_.runner));
}

void LayerSolver::store(std::span<Linear* const> linears,
                        const std::map<const Linear*, SolvedLinear>& solved,
                        LayerWeights& weights) const {
  for (Linear* linear : linears) {
    const SolvedLinear& result = solved.at(linear);
    decode_all(result.stored, linear->weight.canonical.planes[0].mutable_data<float>(),
               job_.backend.codec());
    if (result.activations != nullptr) linear->activations = result.activations;
  }
  prepare_layer(weights, job_.backend);
}

std::map<const Linear*, SolvedLinear> LayerSolver::solve_block(std::int64_t layer,
                                                               const LayerStatistics& statistics,
                                                               LayerWeights& weights) {
  const std::vector<float> inputs = stream_->inputs(), targets = stream_->targets(layer, weights);
  const std::function<FormatPtr(const Linear&)> format_of = [&](const Linear& linear) {
    return job_.plan.find(linear.module).format;
  };
  BlockProblem problem{job_.spec,
                       layer,
                       weights,
                       job_.windows.context,
                       inputs,
                       targets,
                       format_of,
                       job_.backend,
                       static_cast<std::uint64_t>(layer) << 32};
  const RecipeStep& solver = job_.options.recipe.solver();
  auto solutions = solver.algorithm->solve_block(problem, solver.parameters);
  const auto moments = second_moments(job_.spec, weights, statistics);
  std::map<const Linear*, SolvedLinear> solved;
  for (const Linear* linear : weights.linears()) {
    const auto found = solutions.find(linear);
    solved[linear] = found == solutions.end()
                         ? solve_one(layer, *linear, moments.at(linear), nullptr)
                         : report_one(layer, *linear, moments.at(linear), std::move(found->second));
  }
  return solved;
}

std::map<const Linear*, SolvedLinear> LayerSolver::solve_stages(std::int64_t layer,
                                                                const LayerStatistics& statistics,
                                                                LayerWeights& weights,
                                                                const LayerWeights* unquantized) {
  const auto names = statistics_names(sites(job_.spec, weights));
  if (stream_ != nullptr) {
    round_inputs(job_.spec, job_.plan,
                 {statistics, job_.backend.pool(), &histograms_, &job_.calibration}, weights);
    prepare_layer(weights, job_.backend);
  }
  std::map<const Linear*, SolvedLinear> solved;
  for (const Stage& stage : stages(weights)) {
    LayerHessians hessians;
    if (needs_.calibration == CalibrationNeed::kHessian) {
      hessians = stream_->observe(layer, weights, unquantized, site_names(names, stage),
                                  {needs_.residual, needs_.samples});
    }
    for (Linear* linear : stage) {
      const SolverInputs inputs = solver_inputs(hessians, statistics, names.at(linear));
      if (inputs.few_rows > 0) {
        job_.note(fmt::format(
            "layer {}, {}: {} tokens came here, too few for {} channels; rounded without their "
            "correlations",
            layer, linear->module, inputs.few_rows, linear->weight.canonical.cols));
      }
      solved[linear] = solve_one(layer, *linear, inputs.second_moment, inputs.hessian);
    }
    if (stream_ != nullptr) store(stage, solved, weights);
  }
  return solved;
}

std::vector<SolvedLinear> LayerSolver::solve(std::int64_t layer, const RecipePoint& point,
                                             LayerStatistics& statistics, LayerWeights& weights) {
  transform(layer, point, statistics, weights);
  if (watches_ranges_) {
    const bool by_channel = static_inputs_->descriptor().scope == ActivationScope::kChannel;
    RangeObserver observer(layer, by_channel, job_.backend.pool());
    stream_->watch(layer, weights, observer);
    histograms_ = observer.take();
  }
  const bool by_block = needs_.calibration == CalibrationNeed::kActivations;
  const bool corrects = job_.options.recipe.corrects();
  std::optional<LayerWeights> full;
  if (needs_.drift || by_block || corrects) {
    full = clone_layer(weights, job_.backend.pool());
    prepare_layer(*full, job_.backend);
  }
  const LayerWeights* unquantized = full ? &*full : nullptr;
  auto solved = by_block ? solve_block(layer, statistics, weights)
                         : solve_stages(layer, statistics, weights, unquantized);
  if (by_block) store(weights.linears(), solved, weights);
  if (corrects) correct_biases(job_, layer, *full, *stream_, weights);
  if (stream_ != nullptr) stream_->advance(layer, weights, unquantized);
  std::vector<SolvedLinear> result;
  for (const Linear* linear : weights.linears()) result.push_back(std::move(solved.at(linear)));
  return result;
}

void LayerSolver::save(std::int64_t layer) {
  if (stream_ != nullptr && job_.journal.due()) stream_->save(layer);
}

}  // namespace nibble
