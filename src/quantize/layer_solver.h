// From a layer as it is stored to the layer as it will be.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "quantize/calibration_stream.h"
#include "quantize/passes.h"
#include "quantize/range_observer.h"

namespace nibble {

struct SolvedLinear {
  const Linear* linear = nullptr;
  QuantTensor stored;  // in a plain float format: the linear's weight, rounded to it
  ActivationFormatPtr activations = nullptr;  // as the solver chose them, or null
  ModuleReport report;
};

// Solves layers one after the other.
class LayerSolver {
 public:
  // Takes up behind `done` layers or some of them; first_layer() says where.
  LayerSolver(const Job& job, std::int64_t done);
  std::int64_t first_layer() const { return first_layer_; }

  // Transforms and solves a layer, in the order of weights.linears(). Where the recipe needs
  // Hessians, the weights afterwards are those that are stored, and the calibration text has gone
  // through them.
  std::vector<SolvedLinear> solve(std::int64_t layer, const RecipePoint& point,
                                  LayerStatistics& statistics, LayerWeights& weights);
  // Of the inputs of the layer solved last, for static scales; empty where the job needs none.
  const LayerHistograms& histograms() const { return histograms_; }
  // Call when a layer is safe on disk.
  void save(std::int64_t layer);

 private:
  // The inputs of a stage are gathered in one pass over the text, before any of it is rounded.
  std::vector<Stage> stages(LayerWeights& weights) const;
  void transform(std::int64_t layer, const RecipePoint& point, LayerStatistics& statistics,
                 LayerWeights& weights);
  // The whole block at once, where the solver does that.
  std::map<const Linear*, SolvedLinear> solve_block(std::int64_t layer,
                                                    const LayerStatistics& statistics,
                                                    LayerWeights& weights);
  // Stage by stage, each linear by itself; the weights afterwards are those that are stored.
  // unquantized: null for no drift.
  std::map<const Linear*, SolvedLinear> solve_stages(std::int64_t layer,
                                                     const LayerStatistics& statistics,
                                                     LayerWeights& weights,
                                                     const LayerWeights* unquantized);
  SolvedLinear report_one(std::int64_t layer, const Linear& linear,
                          std::span<const float> second_moment, Solution solution) const;
  // Takes the weights for those that are stored.
  void store(std::span<Linear* const> linears, const std::map<const Linear*, SolvedLinear>& solved,
             LayerWeights& weights) const;
  SolvedLinear solve_one(std::int64_t layer, const Linear& linear,
                         std::span<const float> second_moment, const Hessian* hessian) const;

  const Job& job_;
  Needs needs_;  // of the solver
  ActivationFormatPtr static_inputs_;
  bool watches_ranges_ = false;
  std::int64_t first_layer_;
  LayerHistograms histograms_;
  std::unique_ptr<CalibrationStream> stream_;
};

}  // namespace nibble
