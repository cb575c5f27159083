#include "eval/divergence_sums.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "eval/quantile.h"
#include "eval/row_math.h"

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

}  // namespace

void DivergenceSums::add(const float* model, const float* reference,
                         std::span<const std::int32_t> targets, std::int64_t vocab,
                         ThreadPool& pool) {
  constexpr std::int64_t kGrain = 4;
  const auto width = static_cast<std::size_t>(vocab);
  std::vector<Position> positions(targets.size());
  pool.parallel_for(
      static_cast<std::int64_t>(positions.size()), kGrain,
      [&](std::int64_t begin, std::int64_t end) {
        for (auto r = static_cast<std::size_t>(begin); r < static_cast<std::size_t>(end); ++r) {
          positions[r] =
              compare({model + r * width, width}, {reference + r * width, width}, targets[r]);
        }
      });
  for (const Position& position : positions) {
    model_.add(position.model_nll);
    reference_.add(position.reference_nll);
    if (std::isnan(position.kl)) continue;
    kl_.push_back(position.kl);
    agreed_ += position.same_top ? 1 : 0;
  }
}

DivergenceResult DivergenceSums::result(std::int64_t tokens) {
  DivergenceResult result;
  result.model = model_.result(tokens);
  result.reference = reference_.result(tokens);
  double sum = 0;
  for (const double value : kl_) sum += value;
  const auto n = static_cast<double>(kl_.size());
  result.mean_kl = kl_.empty() ? kNan : sum / n;
  result.top1_agreement = kl_.empty() ? kNan : static_cast<double>(agreed_) / n;
  result.max_kl = kl_.empty() ? kNan : *std::max_element(kl_.begin(), kl_.end());
  result.p99_kl = quantile(std::move(kl_), 0.99);
  return result;
}

}  // namespace nibble
