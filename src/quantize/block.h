// One decoder block on its way through a recipe: transformed, solved, rounded.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "quantize/output_plan.h"
#include "quantize/recipe.h"
#include "quantize/statistics.h"

namespace nibble {

// A copy of a layer whose F32 linears, biases and norms may be changed without changing the
// original.
LayerWeights clone_layer(const LayerWeights& weights);

// kCorrupt, naming the tensor, when a weight, bias or norm of the layer holds a NaN or infinity.
void check_finite(LayerWeights& weights);

// The kinds of site of this model that a transform can smooth, in the order of the forward pass.
std::vector<SiteKind> smoothable_kinds(const ModelSpec& spec, const WeightSource& source,
                                       Backend& backend);

// A search step's place in its space; steps without a search have an empty choice.
struct RecipePoint {
  SearchSpace space;
  Choice choice;
};

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

// Brings a float32 layer through all steps before the solver; `statistics` follow.
void transform_layer(const TransformContext& context, const RecipePoint& point,
                     const LayerHessians& hessians, LayerWeights& weights,
                     LayerStatistics& statistics);

// What the solver makes of one linear of a format that is no plain float. The codec has a pool; its
// seed becomes that of the module. kUnsupported where the solver has no grids for what the format
// shares or fits: blocks of rows, fitted tables, columns in 16 bits.
Solution solve_linear(const Recipe& recipe, const LinearFormats& formats, const Linear& linear,
                      std::span<const float> second_moment, const Hessian* hessian, Codec codec);

// Rounds every quantized linear of the layer as it will be stored, keeping float32; of a solver
// that needs Hessians, as it does without.
void round_layer(const Recipe& recipe, const OutputPlan& plan, const ModelSpec& spec,
                 const LayerStatistics& statistics, LayerWeights& weights, Backend& backend);

// E[x_j^2] of the input of each linear of a layer; empty where nothing was seen.
std::map<const Linear*, std::vector<float>> second_moments(const ModelSpec& spec,
                                                           LayerWeights& weights,
                                                           const LayerStatistics& statistics);

}  // namespace nibble
