// One decoder block on its way through a recipe: transformed, solved, rounded.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "quantize/output_plan.h"
#include "quantize/range_observer.h"
#include "quantize/recipe.h"
#include "quantize/statistics.h"

namespace nibble {

// A copy of a layer whose F32 linears, biases and norms may be changed without changing the
// original.
LayerWeights clone_layer(const LayerWeights& weights, ThreadPool& pool);

// A copy whose biases and norms alone may be changed: it shares its matrices with the original.
LayerWeights clone_vectors(const LayerWeights& weights, ThreadPool& pool);

// kCorrupt, naming the tensor, when a weight, bias or norm of the layer holds a NaN or infinity.
void check_finite(LayerWeights& weights, ThreadPool& pool);

// The kinds of site of this model that a transform can smooth, in the order of the forward pass.
std::vector<SiteKind> smoothable_kinds(const ModelSpec& spec, const WeightSource& source,
                                       Backend& backend);

// A search step's place in its space; steps without a search have an empty choice.
struct RecipePoint {
  SearchSpace space;
  Choice choice;
};

// Linears whose inputs do not depend on each other.
using Stage = std::vector<Linear*>;
// The linears of a layer by the kind of their site, in the order of the forward pass.
std::vector<Stage> stages_by_site(const ModelSpec& spec, LayerWeights& weights);

// Sums of each site's inputs, by the names that SiteObserver sees.
using LayerHessians = std::map<std::string, Hessian>;

// What the steps before the solver go by, beside the layer itself.
struct TransformContext {
  const ModelSpec& spec;
  const Recipe& recipe;
  const OutputPlan& plan;
  DType norm_type = DType::kF32;
  ThreadPool& pool;
};

// Whether no step before the solver does more than smooth, and at most one does that.
bool only_smooths(const Recipe& recipe);

// Brings a float32 layer through all steps before the solver; `statistics` follow. With `deferred`,
// for recipes that only smooth, matrices stay as they are.
void transform_layer(const TransformContext& context, const RecipePoint& point,
                     const LayerHessians& hessians, LayerWeights& weights,
                     LayerStatistics& statistics, Deferred* deferred = nullptr);

// Who rounds weights: kernels and threads of the host, and what multiplies and factors large
// matrices for solvers (the same, or a device).
struct SolverBackends {
  Backend& host;
  Backend& products;
};

// What the solver makes of one linear of a format that is no plain float. The codec has a pool; its
// seed becomes that of the module. kUnsupported where the solver has no grids for what the format
// shares or fits: blocks of rows, fitted tables, columns in 16 bits.
Solution solve_linear(const Recipe& recipe, const LinearFormats& formats, const Linear& linear,
                      std::span<const float> second_moment, const Hessian* hessian, Codec codec,
                      Backend& products);

// What the solver of one linear goes by.
struct SolverInputs {
  std::vector<float> second_moment;  // empty where nothing is known
  const Hessian* hessian = nullptr;  // null where there is none, or too few tokens made it
  std::int64_t few_rows = 0;         // tokens, if they were too few
};
// From what the linear's site saw; `hessians` must outlive the result.
SolverInputs solver_inputs(const LayerHessians& hessians, const LayerStatistics& statistics,
                           const std::string& site);

// E[x_j^2] of the input of each linear of a layer; empty where nothing was seen.
std::map<const Linear*, std::vector<float>> second_moments(const ModelSpec& spec,
                                                           LayerWeights& weights,
                                                           const LayerStatistics& statistics);

// What static scales of a layer's inputs follow from: of each site (or column of it) the largest
// magnitude, or the range that a calibrator finds in its histogram, if there is one.
struct InputRanges {
  const LayerStatistics& statistics;
  ThreadPool& pool;
  const LayerHistograms* histograms = nullptr;      // null: there are none
  const CalibrationOptions* calibration = nullptr;  // of them
};

// What the input of a module, which is seen as `site`, is rounded to; null for nothing. A static
// format has its scales. kUsage, naming the module, where such a site saw no token.
ActivationFormatPtr input_format(const PlannedModule& module, const std::string& site,
                                 const InputRanges& ranges);

// Lets the linears of a layer round their inputs as those of the output do; but for formats that go
// by what a stored weight keeps apart. prepare_layer() must follow before the layer runs.
void round_inputs(const ModelSpec& spec, const OutputPlan& plan, const InputRanges& ranges,
                  LayerWeights& weights);

// Rounds every quantized linear of the layer as it will be stored, keeping float32, and lets it
// round its input, static scales covering all that was seen. Without the Hessian of its site a
// solver that needs one does what it can. `keep_codes`: integers stay as they are stored, and
// nothing is prepared; for place_layer() on a device, to which codes go faster than floats.
void round_layer(const Recipe& recipe, const OutputPlan& plan, const ModelSpec& spec,
                 const LayerStatistics& statistics, const LayerHessians& hessians,
                 LayerWeights& weights, const SolverBackends& backends, bool keep_codes = false);

}  // namespace nibble
