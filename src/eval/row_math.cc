#include "eval/row_math.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "eval/perplexity.h"

namespace nibble {
namespace {

double largest(std::span<const float> row) {
  return static_cast<double>(*std::max_element(row.begin(), row.end()));
}

}  // namespace

bool all_finite(std::span<const float> row) {
  // Integer maximum over the magnitudes: unlike a float comparison it sees NaN, and it vectorises.
  std::uint32_t most = 0;
  for (const float v : row) most = std::max(most, std::bit_cast<std::uint32_t>(v) & 0x7fffffffu);
  return most < 0x7f800000u;
}

double log_sum_exp(std::span<const float> row) {
  const double top = largest(row);
  double sum = 0;
  for (const float v : row) sum += std::exp(static_cast<double>(v) - top);
  return top + std::log(sum);
}

double negative_log_likelihood(std::span<const float> row, std::int32_t target) {
  if (!all_finite(row)) return std::numeric_limits<double>::quiet_NaN();
  return log_sum_exp(row) - static_cast<double>(row[static_cast<std::size_t>(target)]);
}

Divergence divergence_of_rows(std::span<const float> p, std::span<const float> q) {
  NIBBLE_CHECK(p.size() == q.size());
  const double p_top = largest(p);
  const double q_top = largest(q);
  double p_sum = 0;
  double q_sum = 0;
  double weighted = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double p_exp = std::exp(static_cast<double>(p[i]) - p_top);
    p_sum += p_exp;
    q_sum += std::exp(static_cast<double>(q[i]) - q_top);
    weighted += p_exp * (static_cast<double>(p[i]) - static_cast<double>(q[i]));
  }
  Divergence result;
  result.p_log_sum_exp = p_top + std::log(p_sum);
  result.q_log_sum_exp = q_top + std::log(q_sum);
  const double kl = weighted / p_sum - result.p_log_sum_exp + result.q_log_sum_exp;
  result.kl = std::max(0.0, kl);  // rounding can leave a hair below zero
  return result;
}

double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits) {
  if (!all_finite(p_logits) || !all_finite(q_logits)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  return divergence_of_rows(p_logits, q_logits).kl;
}

}  // namespace nibble
