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

// Brings a float32 layer through all steps before the solver; `statistics` follow.
void transform_layer(const ModelSpec& spec, const Recipe& recipe, const RecipePoint& point,
                     DType norm_type, LayerWeights& weights, LayerStatistics& statistics);

// What the solver chose for one linear of an affine format.
std::vector<AffineParams> solve_linear(const Recipe& recipe, const Format& format,
                                       const Linear& linear, std::span<const float> second_moment,
                                       ThreadPool& pool);

// What the solver stores of one linear in a format that is no affine one. kUnsupported when it
// cannot.
QuantTensor encode_linear(const Recipe& recipe, const Format& format, const Linear& linear,
                          std::span<const float> second_moment);

// kUnsupported when the solver of the recipe cannot choose for a format of the plan.
void check_solver(const Recipe& recipe, const OutputPlan& plan);

// Rounds every quantized linear of the layer as it will be stored, keeping float32.
void round_layer(const Recipe& recipe, const OutputPlan& plan, const ModelSpec& spec,
                 const LayerStatistics& statistics, LayerWeights& weights, Backend& backend);

// E[x_j^2] of the input of each linear of a layer; empty where nothing was seen.
std::map<const Linear*, std::vector<float>> second_moments(const ModelSpec& spec,
                                                           LayerWeights& weights,
                                                           const LayerStatistics& statistics);

}  // namespace nibble
