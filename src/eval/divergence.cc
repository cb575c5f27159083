#include <array>

#include "eval/divergence_sums.h"
#include "eval/perplexity.h"
#include "eval/windows.h"

namespace nibble {

DivergenceResult divergence(const Model& model, const Model& reference,
                            std::span<const std::int32_t> ids, const WindowOptions& options,
                            const ProgressSink& progress) {
  const WindowPlan plan = plan_windows(ids, options);
  DivergenceSums sums;
  const std::array<const Model*, 2> models = {&model, &reference};
  for_each_prediction(models, plan, "divergence", progress, [&](const PredictionChunk& chunk) {
    sums.add(chunk.logits[0], chunk.logits[1], chunk.targets, model.spec().vocab,
             model.backend().pool());
  });
  return sums.result(static_cast<std::int64_t>(plan.ids.size()));
}

}  // namespace nibble
