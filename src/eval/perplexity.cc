#include "eval/perplexity.h"

#include <array>
#include <vector>

#include "eval/nll_sum.h"
#include "eval/row_math.h"
#include "eval/windows.h"

namespace nibble {
namespace {

constexpr std::int64_t kGrain = 4;  // rows of logits a thread takes at least

}  // namespace

PerplexityResult perplexity(const Model& model, std::span<const std::int32_t> ids,
                            const WindowOptions& options, const ProgressSink& progress) {
  const WindowPlan plan = plan_windows(ids, options);
  const auto vocab = static_cast<std::size_t>(model.spec().vocab);
  NllSum sum;
  std::vector<double> nll;
  const std::array<const Model*, 1> models = {&model};
  for_each_prediction(models, plan, "perplexity", progress, [&](const PredictionChunk& chunk) {
    nll.resize(chunk.targets.size());
    const auto rows = static_cast<std::int64_t>(nll.size());
    model.backend().pool().parallel_for(rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (auto r = static_cast<std::size_t>(begin); r < static_cast<std::size_t>(end); ++r) {
        nll[r] = negative_log_likelihood({chunk.logits[0] + r * vocab, vocab}, chunk.targets[r]);
      }
    });
    for (const double value : nll) sum.add(value);
  });
  return sum.result(static_cast<std::int64_t>(plan.ids.size()));
}

}  // namespace nibble
