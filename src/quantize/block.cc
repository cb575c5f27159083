#include "quantize/block.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "formats/low_rank.h"
#include "formats/split_format.h"
#include "quantize/math/compensation.h"

namespace nibble {
namespace {

// Of the correlations by which a product of low rank is chosen, as a share of their mean diagonal.
constexpr double kCompensationDamping = 0.01;

// Rows for each channel below which correlations say more of the few tokens than of the text.
constexpr double kLeastRowsPerChannel = 0.25;

Tensor clone(const Tensor& tensor, ThreadPool& pool) {
  if (tensor.empty()) return {};
  constexpr std::int64_t kGrain = std::int64_t{1} << 16;
  Tensor copy = host_memory().allocate(DType::kF32, tensor.shape());
  const float* const from = tensor.data<float>();
  float* const to = copy.mutable_data<float>();
  pool.parallel_for(tensor.elements(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::copy(from + begin, from + end, to + begin);
  });
  return copy;
}

void clone_matrix(Linear& linear, ThreadPool& pool) {
  if (!linear.exists()) return;
  linear.weight = {dense(clone(linear.weight.canonical.planes[0], pool)), nullptr};
}

void check_tensor(const Tensor& tensor, const std::string& name, ThreadPool& pool) {
  if (tensor.empty()) return;
  constexpr std::int64_t kGrain = std::int64_t{1} << 16;
  const float* values = tensor.data<float>();
  const auto is_bad = [](float value) { return !std::isfinite(value); };
  std::atomic<bool> any = false;
  pool.parallel_for(tensor.elements(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    if (std::any_of(values + begin, values + end, is_bad)) any = true;
  });
  if (!any) return;
  const auto bad = std::find_if(values, values + tensor.elements(), is_bad);
  fail(ErrorKind::kCorrupt, "tensor '{}': element {} is {}; the checkpoint is damaged", name,
       bad - values, *bad);
}

}  // namespace

LayerWeights clone_layer(const LayerWeights& weights, ThreadPool& pool) {
  LayerWeights copy = clone_vectors(weights, pool);
  for (Linear* linear : copy.linears()) clone_matrix(*linear, pool);
  clone_matrix(copy.router, pool);
  return copy;
}

LayerWeights clone_vectors(const LayerWeights& weights, ThreadPool& pool) {
  LayerWeights copy = weights;
  for (Linear* linear : copy.linears()) linear->bias = clone(linear->bias, pool);
  copy.router.bias = clone(copy.router.bias, pool);
  for (Norm* norm : copy.norms()) {
    norm->weight = clone(norm->weight, pool);
    norm->bias = clone(norm->bias, pool);
  }
  return copy;
}

void check_finite(LayerWeights& weights, ThreadPool& pool) {
  for (const Linear* linear : weights.linears()) {
    check_tensor(linear->weight.canonical.planes[0], linear->module + ".weight", pool);
    check_tensor(linear->bias, linear->module + ".bias", pool);
  }
  for (const Norm* norm : weights.norms()) {
    check_tensor(norm->weight, norm->module + ".weight", pool);
    check_tensor(norm->bias, norm->module + ".bias", pool);
  }
}

std::vector<SiteKind> smoothable_kinds(const ModelSpec& spec, const WeightSource& source,
                                       Backend& backend) {
  LayerWeights weights = load_layer(spec, 0, source, backend);
  std::vector<SiteKind> kinds;
  for (const Site& site : sites(spec, weights)) {
    if (site.producer.kind == Producer::Kind::kNone) continue;
    if (std::ranges::find(kinds, site.kind) == kinds.end()) kinds.push_back(site.kind);
  }
  return kinds;
}

std::vector<Stage> stages_by_site(const ModelSpec& spec, LayerWeights& weights) {
  std::map<SiteKind, Stage> by_kind;  // in the order of the forward pass
  for (const Site& site : sites(spec, weights)) {
    Stage& stage = by_kind[site.kind];
    stage.insert(stage.end(), site.consumers.begin(), site.consumers.end());
  }
  std::vector<Stage> result;
  for (auto& [kind, stage] : by_kind) result.push_back(std::move(stage));
  return result;
}

bool only_smooths(const Recipe& recipe) {
  int transforms = 0;
  for (const RecipeStep& step : recipe.steps) {
    if (step.algorithm->transform == nullptr) continue;
    if (!step.algorithm->only_smooths || ++transforms > 1) return false;
  }
  return true;
}

void transform_layer(const TransformContext& context, const RecipePoint& point,
                     const LayerHessians& hessians, LayerWeights& weights,
                     LayerStatistics& statistics, Deferred* deferred) {
  NIBBLE_CHECK(deferred == nullptr || only_smooths(context.recipe));
  std::vector<Site> layer_sites = sites(context.spec, weights);
  const std::function<FormatPtr(const Linear&)> format_of = [&](const Linear& linear) {
    return context.plan.find(linear.module).format;
  };
  const std::function<ActivationFormatPtr(const Linear&)> activations_of =
      [&](const Linear& linear) { return context.plan.find(linear.module).activations; };
  TransformBlock block{context.spec,   layer_sites,  statistics,        hessians, format_of,
                       activations_of, context.pool, context.norm_type, deferred};
  for (const RecipeStep& step : context.recipe.steps) {
    if (step.algorithm->transform == nullptr) continue;
    const bool searched = step.algorithm->kind == StepKind::kSearch;
    step.algorithm->transform(block, step.parameters, searched ? point.space : SearchSpace{},
                              searched ? point.choice : Choice{});
  }
}

Solution solve_linear(const Recipe& recipe, const LinearFormats& formats, const Linear& linear,
                      std::span<const float> second_moment, const Hessian* hessian, Codec codec,
                      Backend& products) {
  const FormatPtr& format = formats.weight;
  const QuantTensor& weight = linear.weight.canonical;
  const RecipeStep& solver = recipe.solver();
  const WeightDescriptor& descriptor = format->descriptor();
  const bool grids = descriptor.scheme.granularity != Granularity::kBlock &&
                     descriptor.element.kind != ElementKind::kFitted &&
                     descriptor.element.kind != ElementKind::kIntSplit &&
                     descriptor.element.kind != ElementKind::kMixed;
  if (!grids && !solver.algorithm->solves_all) {
    fail(
        ErrorKind::kUnsupported,
        "recipe '{}': its step '{}' cannot choose blocks of rows, fitted tables, split columns and "
        "mixed widths ({}); take 'rtn'",
        recipe.name, solver.algorithm->name, format->name());
  }
  codec.importance = second_moment;
  codec.seed = 0xcbf29ce484222325u;
  for (const char letter : linear.module) {  // FNV-1a
    codec.seed = (codec.seed ^ static_cast<unsigned char>(letter)) * 0x100000001b3u;
  }
  SolverProblem problem{format,        weight.planes[0].data<float>(),
                        weight.rows,   weight.cols,
                        second_moment, hessian,
                        *codec.pool,   products,
                        codec,         formats.activations};
  if (!is_low_rank(*format)) return solver.algorithm->solve(problem, solver.parameters);
  problem.format = make_format(*format->descriptor().element.base);
  Solution solution = solver.algorithm->solve(problem, solver.parameters);
  std::optional<InverseFactor> factor;
  if (hessian != nullptr) {
    const auto order = column_order(ColumnOrder::kStored, *hessian, 1);
    factor = inverse_factor(*hessian, order, kCompensationDamping, products);
    if (factor) factor = on_host(*factor, products);
  }
  solution.stored = compensated(format, solution.stored, problem.w, factor ? &*factor : nullptr,
                                second_moment, codec);
  return solution;
}

SolverInputs solver_inputs(const LayerHessians& hessians, const LayerStatistics& statistics,
                           const std::string& site) {
  SolverInputs inputs;
  const auto found = hessians.find(site);
  if (found == hessians.end()) {
    const ChannelStatistics* seen = find_statistics(statistics, site);
    if (seen != nullptr) inputs.second_moment = seen->second_moment();
    return inputs;
  }
  const Hessian& hessian = found->second;
  inputs.second_moment = hessian.second_moment();
  const bool few = static_cast<double>(hessian.rows) <
                   kLeastRowsPerChannel * static_cast<double>(hessian.channels);
  inputs.hessian = few ? nullptr : &hessian;
  inputs.few_rows = few ? hessian.rows : 0;
  return inputs;
}

std::map<const Linear*, std::vector<float>> second_moments(const ModelSpec& spec,
                                                           LayerWeights& weights,
                                                           const LayerStatistics& statistics) {
  std::map<const Linear*, std::vector<float>> result;
  for (const auto& [linear, name] : statistics_names(sites(spec, weights))) {
    const ChannelStatistics* seen = find_statistics(statistics, name);
    result[linear] = seen == nullptr ? std::vector<float>{} : seen->second_moment();
  }
  return result;
}

ActivationFormatPtr input_format(const PlannedModule& module, const std::string& site,
                                 const InputRanges& ranges) {
  const ActivationFormatPtr& format = module.activations;
  if (format == nullptr || !format->descriptor().is_static) return format;
  const ChannelStatistics* seen = find_statistics(ranges.statistics, site);
  if (seen == nullptr) {
    fail(ErrorKind::kUsage,
         "module '{}' saw no calibration token, so it has no static scale; give more text, or "
         "round its input by token",
         module.module);
  }
  const std::vector<Histogram>* histograms = nullptr;
  if (ranges.histograms != nullptr) {
    const auto found = ranges.histograms->find(site);
    if (found != ranges.histograms->end()) histograms = &found->second;
  }
  const CalibrationOptions calibration =
      ranges.calibration != nullptr ? *ranges.calibration : CalibrationOptions{};
  return format->with_scales(static_scales(calibration, *format, *seen, histograms, ranges.pool));
}

void round_inputs(const ModelSpec& spec, const OutputPlan& plan, const InputRanges& ranges,
                  LayerWeights& weights) {
  const auto names = statistics_names(sites(spec, weights));
  for (Linear* linear : weights.linears()) {
    const std::string& site = names.at(linear);
    const PlannedModule& module = plan.find(linear->module);
    if (module.activations == nullptr) continue;
    const bool unseen = module.activations->descriptor().is_static &&
                        find_statistics(ranges.statistics, site) == nullptr;
    const ActivationFormatPtr format = unseen ? nullptr : input_format(module, site, ranges);
    if (format != nullptr && format->is_complete()) linear->activations = format;
  }
}

void round_layer(const Recipe& recipe, const OutputPlan& plan, const ModelSpec& spec,
                 const LayerStatistics& statistics, const LayerHessians& hessians,
                 LayerWeights& weights, const SolverBackends& backends, bool keep_codes) {
  const auto names = statistics_names(sites(spec, weights));
  round_inputs(spec, plan, {statistics, backends.host.pool()}, weights);
  for (Linear* linear : weights.linears()) {
    const PlannedModule& module = plan.find(linear->module);
    if (module.format->is_float()) continue;
    const SolverInputs inputs = solver_inputs(hessians, statistics, names.at(linear));
    Solution solution = solve_linear(recipe, {module.format}, *linear, inputs.second_moment,
                                     inputs.hessian, backends.host.codec(), backends.products);
    if (module.activations != nullptr && module.activations->descriptor().weight_outliers) {
      linear->activations = module.activations->with_columns(outlier_columns(solution.stored));
    }
    if (keep_codes && module.format->is_affine()) {
      linear->weight = {std::move(solution.stored), nullptr};
      continue;
    }
    decode_all(solution.stored, linear->weight.canonical.planes[0].mutable_data<float>(),
               backends.host.codec());
  }
  if (!keep_codes) prepare_layer(weights, backends.host);
}

}  // namespace nibble
