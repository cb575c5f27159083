// The layers of a model as the transforms of a recipe leave them, before anything is rounded.
#pragma once

#include <memory>

#include "quantize/passes.h"
#include "quantize/setup.h"

namespace nibble {

// Not thread-safe.
class TransformedLayers {
 public:
  // Calibrates, and searches where the recipe does, with the solver and format of the options.
  // What is done is kept in `state`, a directory of its own, so that an interrupted run continues.
  // options.source, recipe, format and calibration count; `backend` outlives the object. Errors as
  // quantize(); kUsage for a recipe without a transform.
  TransformedLayers(const QuantizeOptions& options, const std::filesystem::path& state,
                    Backend& backend);
  ~TransformedLayers();
  TransformedLayers(const TransformedLayers&) = delete;
  TransformedLayers& operator=(const TransformedLayers&) = delete;

  // The model that the layers are of: the source, or what the recipe's rewrites make of it.
  const ModelSpec& spec() const { return setup_->spec(); }
  const WeightSource& source() const { return setup_->source(); }
  // F32, ready to run.
  LayerWeights load(std::int64_t layer) const;

 private:
  QuantizeOptions options_;
  Backend& backend_;
  std::unique_ptr<Setup> setup_;
  std::unique_ptr<Journal> journal_;
  QuantizeReport report_;
  std::unique_ptr<Job> job_;
  Calibration calibration_;
  RecipePoint point_;
};

}  // namespace nibble
