#include "quantize/block.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::int64_t kRowGrain = 8;

Tensor clone(const Tensor& tensor) {
  if (tensor.empty()) return {};
  return from_float(tensor.data<float>(), DType::kF32, tensor.shape());
}

void clone_in_place(Linear& linear) {
  if (!linear.exists()) return;
  linear.weight = {dense(clone(linear.weight.canonical.planes[0])), nullptr};
  linear.bias = clone(linear.bias);
}

void check_tensor(const Tensor& tensor, const std::string& name) {
  if (tensor.empty()) return;
  const float* values = tensor.data<float>();
  const auto bad = std::find_if(values, values + tensor.elements(),
                                [](float value) { return !std::isfinite(value); });
  if (bad == values + tensor.elements()) return;
  fail(ErrorKind::kCorrupt, "tensor '{}': element {} is {}; the checkpoint is damaged", name,
       bad - values, *bad);
}

// Rounds rows of a matrix in place, with parameters in the order of affine_encode().
void round_rows(const WeightDescriptor& descriptor, std::span<const AffineParams> params,
                std::int64_t cols, std::int64_t begin, std::int64_t end, float* w) {
  const Scheme& scheme = descriptor.scheme;
  const std::int64_t groups = groups_per_row(scheme, cols);
  const std::int64_t length = cols / groups;
  for (std::int64_t row = begin; row < end; ++row) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t index = scheme.granularity == Granularity::kTensor ? 0 : row * groups + g;
      float* group = w + row * cols + g * length;
      affine_round_trip(descriptor, params[static_cast<std::size_t>(index)], group, length, group);
    }
  }
}

// Rounds rows of a matrix in place, in a format that is no affine one.
void round_rows(const RecipeStep& solver, const Format& format, const SolverProblem& problem,
                float* w) {
  decode_all(solver.algorithm->encode(format, problem, solver.parameters), w);
}

// True when rows can be encoded apart: no scale is shared beyond a row.
bool rows_are_independent(const Scheme& scheme) {
  return scheme.granularity != Granularity::kTensor && scheme.second_level == SecondLevel::kNone;
}

}  // namespace

LayerWeights clone_layer(const LayerWeights& weights) {
  LayerWeights copy = weights;
  for (Linear* linear : copy.linears()) clone_in_place(*linear);
  clone_in_place(copy.router);
  for (Norm* norm : copy.norms()) {
    norm->weight = clone(norm->weight);
    norm->bias = clone(norm->bias);
  }
  return copy;
}

void check_finite(LayerWeights& weights) {
  for (const Linear* linear : weights.linears()) {
    check_tensor(linear->weight.canonical.planes[0], linear->module + ".weight");
    check_tensor(linear->bias, linear->module + ".bias");
  }
  for (const Norm* norm : weights.norms()) {
    check_tensor(norm->weight, norm->module + ".weight");
    check_tensor(norm->bias, norm->module + ".bias");
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

void transform_layer(const ModelSpec& spec, const Recipe& recipe, const RecipePoint& point,
                     DType norm_type, LayerWeights& weights, LayerStatistics& statistics) {
  std::vector<Site> layer_sites = sites(spec, weights);
  TransformBlock block{spec, layer_sites, statistics, norm_type};
  for (const RecipeStep& step : recipe.steps) {
    if (step.algorithm->transform == nullptr) continue;
    const bool searched = step.algorithm->kind == StepKind::kSearch;
    step.algorithm->transform(block, step.parameters, searched ? point.space : SearchSpace{},
                              searched ? point.choice : Choice{});
  }
}

std::vector<AffineParams> solve_linear(const Recipe& recipe, const Format& format,
                                       const Linear& linear, std::span<const float> second_moment,
                                       ThreadPool& pool) {
  const WeightDescriptor& descriptor = format.descriptor();
  const QuantTensor& weight = linear.weight.canonical;
  const float* w = weight.planes[0].data<float>();
  const RecipeStep& solver = recipe.solver();
  SolverProblem problem{descriptor, w, weight.rows, weight.cols, second_moment};
  if (descriptor.scheme.granularity == Granularity::kTensor) {
    std::vector<AffineParams> params(1);
    solver.algorithm->solve(problem, solver.parameters, params);
    return params;
  }
  const std::int64_t groups = groups_per_row(descriptor.scheme, weight.cols);
  std::vector<AffineParams> params(static_cast<std::size_t>(weight.rows * groups));
  pool.parallel_for(weight.rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    SolverProblem part = problem;
    part.w = w + begin * weight.cols;
    part.rows = end - begin;
    solver.algorithm->solve(
        part, solver.parameters,
        std::span(params).subspan(static_cast<std::size_t>(begin * groups),
                                  static_cast<std::size_t>(part.rows * groups)));
  });
  return params;
}

QuantTensor encode_linear(const Recipe& recipe, const Format& format, const Linear& linear,
                          std::span<const float> second_moment) {
  const QuantTensor& weight = linear.weight.canonical;
  const RecipeStep& solver = recipe.solver();
  return solver.algorithm->encode(format,
                                  {format.descriptor(), weight.planes[0].data<float>(), weight.rows,
                                   weight.cols, second_moment},
                                  solver.parameters);
}

void check_solver(const Recipe& recipe, const OutputPlan& plan) {
  const Algorithm& solver = *recipe.solver().algorithm;
  for (const PlannedModule& module : plan.modules) {
    if (module.layer < 0 || module.format->is_float() || module.format->is_affine()) continue;
    if (solver.encode != nullptr) continue;
    fail(ErrorKind::kUnsupported,
         "recipe '{}': its step '{}' chooses ranges of integers and has none for {}; take a recipe "
         "that rounds to nearest, such as 'rtn'",
         recipe.name, solver.name, module.format->name());
  }
}

std::map<const Linear*, std::vector<float>> second_moments(const ModelSpec& spec,
                                                           LayerWeights& weights,
                                                           const LayerStatistics& statistics) {
  std::map<const Linear*, std::vector<float>> result;
  for (const auto& [linear, name] : statistics_names(weights, sites(spec, weights))) {
    const ChannelStatistics* seen = find_statistics(statistics, name);
    result[linear] = seen == nullptr ? std::vector<float>{} : seen->second_moment();
  }
  return result;
}

void round_layer(const Recipe& recipe, const OutputPlan& plan, const ModelSpec& spec,
                 const LayerStatistics& statistics, LayerWeights& weights, Backend& backend) {
  const auto moments = second_moments(spec, weights, statistics);
  for (Linear* linear : weights.linears()) {
    const Format& format = *plan.find(linear->module).format;
    if (format.is_float()) continue;
    QuantTensor& weight = linear->weight.canonical;
    float* w = weight.planes[0].mutable_data<float>();
    if (!format.is_affine()) {
      const SolverProblem problem{format.descriptor(), w, weight.rows, weight.cols,
                                  moments.at(linear)};
      const bool apart = rows_are_independent(format.descriptor().scheme);
      backend.pool().parallel_for(
          weight.rows, apart ? kRowGrain : weight.rows, [&](std::int64_t begin, std::int64_t end) {
            SolverProblem part = problem;
            part.w = w + begin * weight.cols;
            part.rows = end - begin;
            round_rows(recipe.solver(), format, part, w + begin * weight.cols);
          });
      continue;
    }
    const auto params = solve_linear(recipe, format, *linear, moments.at(linear), backend.pool());
    backend.pool().parallel_for(weight.rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      round_rows(format.descriptor(), params, weight.cols, begin, end, w);
    });
  }
  prepare_layer(weights, backend);
}

}  // namespace nibble
