#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "eval/nll_sum.h"
#include "eval/perplexity.h"
#include "eval/quantile.h"
#include "eval/row_math.h"
#include "eval/windows.h"

namespace nibble {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// What one position of the text says about the two models. NaN where a model's logits hold one.
struct Position {
  double model_nll = kNan;
  double reference_nll = kNan;
  double kl = kNan;
  bool same_top = false;
};

std::size_t top(std::span<const float> row) {
  return static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

Position compare(std::span<const float> model, std::span<const float> reference,
                 std::int32_t target) {
  Position position;
  if (!all_finite(model) || !all_finite(reference)) {
    position.model_nll = negative_log_likelihood(model, target);
    position.reference_nll = negative_log_likelihood(reference, target);
    return position;
  }
  const Divergence rows = divergence_of_rows(reference, model);
  const auto at = static_cast<std::size_t>(target);
  position.reference_nll = rows.p_log_sum_exp - static_cast<double>(reference[at]);
  position.model_nll = rows.q_log_sum_exp - static_cast<double>(model[at]);
  position.kl = rows.kl;
  position.same_top = top(model) == top(reference);
  return position;
}

// Sums over all positions; 8 bytes each for the exact quantile.
struct Sums {
  NllSum model, reference;
  std::vector<double> kl;
  std::int64_t agreed = 0;

  void add(const Position& position) {
    model.add(position.model_nll);
    reference.add(position.reference_nll);
    if (std::isnan(position.kl)) return;
    kl.push_back(position.kl);
    agreed += position.same_top ? 1 : 0;
  }

  DivergenceResult result(std::int64_t tokens) {
    DivergenceResult result;
    result.model = model.result(tokens);
    result.reference = reference.result(tokens);
    double sum = 0;
    for (const double value : kl) sum += value;
    const auto n = static_cast<double>(kl.size());
    result.mean_kl = kl.empty() ? kNan : sum / n;
    result.top1_agreement = kl.empty() ? kNan : static_cast<double>(agreed) / n;
    result.max_kl = kl.empty() ? kNan : *std::max_element(kl.begin(), kl.end());
    result.p99_kl = quantile(std::move(kl), 0.99);
    return result;
  }
};

}  // namespace

DivergenceResult divergence(const Model& model, const Model& reference,
                            std::span<const std::int32_t> ids, const WindowOptions& options,
                            const ProgressSink& progress) {
  constexpr std::int64_t kGrain = 4;
  const WindowPlan plan = plan_windows(ids, options);
  const auto vocab = static_cast<std::size_t>(model.spec().vocab);
  Sums sums;
  std::vector<Position> positions;
  const std::array<const Model*, 2> models = {&model, &reference};
  for_each_prediction(models, plan, "divergence", progress, [&](const PredictionChunk& chunk) {
    positions.resize(chunk.targets.size());
    const auto rows = static_cast<std::int64_t>(positions.size());
    model.backend().pool().parallel_for(rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (auto r = static_cast<std::size_t>(begin); r < static_cast<std::size_t>(end); ++r) {
        positions[r] = compare({chunk.logits[0] + r * vocab, vocab},
                               {chunk.logits[1] + r * vocab, vocab}, chunk.targets[r]);
      }
    });
    for (const Position& position : positions) sums.add(position);
  });
  return sums.result(static_cast<std::int64_t>(plan.ids.size()));
}

}  // namespace nibble
