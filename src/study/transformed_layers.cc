#include "study/transformed_layers.h"

#include <algorithm>

#include "base/content_hash.h"
#include "base/error.h"

namespace nibble {
namespace {

QuantizeOptions without_verification(QuantizeOptions options) {
  options.verify = {};
  options.verify.enabled = false;
  const bool transforms = std::ranges::any_of(options.recipe.steps, [](const RecipeStep& step) {
    return step.algorithm->transform != nullptr || step.algorithm->rewrite != nullptr;
  });
  if (!transforms) {
    fail(ErrorKind::kUsage, "recipe '{}' rounds weights and transforms nothing; take another one",
         options.recipe.name);
  }
  for (const RecipeStep& step : options.recipe.steps) {
    const Algorithm& algorithm = *step.algorithm;
    if (algorithm.transform == nullptr ||
        algorithm.needs.calibration != CalibrationNeed::kHessian) {
      continue;
    }
    fail(ErrorKind::kUnsupported,
         "recipe '{}': its step '{}' follows the rounding of the blocks before; without rounding "
         "there is nothing to show",
         options.recipe.name, algorithm.name);
  }
  return options;
}

std::filesystem::path state_of(const std::filesystem::path& state, const Setup& setup) {
  ContentHash hash;
  hash.add(setup.fingerprint());
  std::error_code error;
  std::filesystem::create_directories(state, error);
  if (error) fail(ErrorKind::kDisk, "{}: cannot create: {}", state.string(), error.message());
  return state / hash.hex();
}

}  // namespace

TransformedLayers::TransformedLayers(const QuantizeOptions& options,
                                     const std::filesystem::path& state, Backend& backend)
    : options_(without_verification(options)),
      backend_(backend),
      setup_(std::make_unique<Setup>(options_, backend, backend)),
      journal_(std::make_unique<Journal>(state_of(state, *setup_), options_.on_saved,
                                         options_.save_seconds)),
      job_(new Job{options_, backend_, backend_, setup_->source(), setup_->spec(), setup_->plan(),
                   setup_->windows(), setup_->calibration(), *journal_, report_}) {
  if (options_.recipe.needs_statistics()) calibration_ = run_statistics_pass(*job_);
  point_ = run_search(*job_, calibration_);
  calibration_.reference.reset();
}

TransformedLayers::~TransformedLayers() = default;

LayerWeights TransformedLayers::load(std::int64_t layer) const {
  LayerWeights weights = load_layer_f32(setup_->spec(), layer, setup_->source(), backend_);
  LayerStatistics statistics;
  if (!calibration_.layers.empty()) {
    statistics = calibration_.layers[static_cast<std::size_t>(layer)];
  }
  transform_layer(transform_context(*job_), point_, {}, weights, statistics);
  prepare_layer(weights, backend_);
  return weights;
}

}  // namespace nibble
