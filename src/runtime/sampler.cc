#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <unordered_set>

#include "base/error.h"

namespace nibble {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();

void require(bool ok, std::string_view name, double value, std::string_view range) {
  if (!ok) fail(ErrorKind::kUsage, "sampling: {} is {}, it must be {}", name, value, range);
}

void require_sane(std::span<const float> logits) {
  bool any = false;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
      fail(
          ErrorKind::kCorrupt,
          "sampling: the model's logit of token {} is {}; its weights or its arithmetic are broken",
          i, logits[i]);
    }
    any = any || logits[i] != kRemoved;
  }
  if (!any) fail(ErrorKind::kCorrupt, "sampling: the model gives no token a probability");
}

// Sum of exp(logit - top) over the row.
double exp_sum(std::span<const float> logits, float top) {
  double sum = 0;
  for (const float v : logits) sum += std::exp(static_cast<double>(v) - top);
  return sum;
}

bool counts_tokens(const SamplingOptions& options) {
  return options.frequency_penalty != 0 || options.presence_penalty != 0;
}

float largest(std::span<const float> logits) {
  return *std::max_element(logits.begin(), logits.end());
}

}  // namespace

void validate(const SamplingOptions& options) {
  require(std::isfinite(options.temperature) && options.temperature >= 0, "temperature",
          options.temperature, "0 (greedy) or more");
  require(options.top_k >= 0, "top-k", static_cast<double>(options.top_k), "0 (off) or more");
  require(options.top_p > 0 && options.top_p <= 1, "top-p", options.top_p, "in (0, 1]");
  require(options.min_p >= 0 && options.min_p <= 1, "min-p", options.min_p, "in [0, 1]");
  require(options.typical_p > 0 && options.typical_p <= 1, "typical-p", options.typical_p,
          "in (0, 1]");
  require(std::isfinite(options.repetition_penalty) && options.repetition_penalty > 0,
          "repetition penalty", options.repetition_penalty, "above 0");
  require(std::abs(options.frequency_penalty) <= 2, "frequency penalty", options.frequency_penalty,
          "in [-2, 2]");
  require(std::abs(options.presence_penalty) <= 2, "presence penalty", options.presence_penalty,
          "in [-2, 2]");
  for (const auto& [id, bias] : options.logit_bias) {
    require(id >= 0, "a token of the logit bias", id, "0 or more");
    require(std::abs(bias) <= 100, "logit bias", bias, "in [-100, 100]");
  }
}

void apply_repetition_penalty(std::span<float> logits, std::span<const std::int32_t> context,
                              float penalty) {
  const std::unordered_set<std::int32_t> seen(context.begin(), context.end());
  for (const std::int32_t id : seen) {
    NIBBLE_CHECK(id >= 0 && static_cast<std::size_t>(id) < logits.size());
    float& v = logits[static_cast<std::size_t>(id)];
    v = v < 0 ? v * penalty : v / penalty;
  }
}

void apply_count_penalties(std::span<float> logits, const TokenCounts& generated, float frequency,
                           float presence) {
  for (const auto& [id, count] : generated) {
    logits[static_cast<std::size_t>(id)] -= static_cast<float>(count) * frequency + presence;
  }
}

void apply_logit_bias(std::span<float> logits,
                      std::span<const std::pair<std::int32_t, float>> bias) {
  for (const auto& [id, value] : bias) logits[static_cast<std::size_t>(id)] += value;
}

void apply_temperature(std::span<float> logits, float temperature) {
  for (float& v : logits) v /= temperature;
}

void keep_top_k(std::span<float> logits, std::int64_t k) {
  if (k >= static_cast<std::int64_t>(logits.size())) return;
  std::vector<float> sorted(logits.begin(), logits.end());
  const auto nth = sorted.begin() + (k - 1);
  std::nth_element(sorted.begin(), nth, sorted.end(), std::greater<>());
  for (float& v : logits) {
    if (v < *nth) v = kRemoved;
  }
}

void keep_top_p(std::span<float> logits, float p) {
  const float top = largest(logits);
  const double total = exp_sum(logits, top);
  const double allowance = (1.0 - static_cast<double>(p)) * total;
  // Tokens below an equal share of the allowance cannot exceed it together: they need no sorting.
  const double share = allowance / static_cast<double>(logits.size());
  std::vector<std::size_t> order;
  double removed = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double mass = std::exp(static_cast<double>(logits[i]) - top);
    if (mass > share) {
      order.push_back(i);
    } else {
      removed += mass;
      logits[i] = kRemoved;
    }
  }
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return logits[a] != logits[b] ? logits[a] < logits[b] : a > b;
  });
  order.pop_back();  // the most probable token: its mass of 1 is above any share
  for (const std::size_t i : order) {
    removed += std::exp(static_cast<double>(logits[i]) - top);
    if (removed > allowance) break;
    logits[i] = kRemoved;
  }
}

void keep_min_p(std::span<float> logits, float p) {
  const float top = largest(logits);
  // exp(v - top) < p, without the exponentials.
  const double threshold = static_cast<double>(top) + std::log(static_cast<double>(p));
  for (float& v : logits) {
    if (v < threshold) v = kRemoved;
  }
}

void keep_typical(std::span<float> logits, float p) {
  const double top = largest(logits);
  const double log_sum = top + std::log(exp_sum(logits, static_cast<float>(top)));
  double entropy = 0;
  for (const float v : logits) {
    if (v != kRemoved) entropy -= std::exp(v - log_sum) * (v - log_sum);
  }
  std::vector<std::pair<double, double>> order;  // distance from the entropy, probability
  for (const float v : logits) {
    if (v != kRemoved) order.emplace_back(std::abs(log_sum - v - entropy), std::exp(v - log_sum));
  }
  std::sort(order.begin(), order.end());
  double sum = 0;
  double farthest = 0;
  for (const auto& [distance, probability] : order) {
    farthest = distance;
    sum += probability;
    if (sum >= p) break;
  }
  for (float& v : logits) {
    if (std::abs(log_sum - v - entropy) > farthest) v = kRemoved;
  }
}

void apply_filters(const SamplingOptions& options, std::span<const std::int32_t> context,
                   std::span<float> logits, const TokenCounts& generated) {
  apply_logit_bias(logits, options.logit_bias);
  if (options.repetition_penalty != 1) {
    apply_repetition_penalty(logits, context, options.repetition_penalty);
  }
  if (counts_tokens(options)) {
    apply_count_penalties(logits, generated, options.frequency_penalty, options.presence_penalty);
  }
  if (options.temperature == 0) return;
  if (options.temperature != 1) apply_temperature(logits, options.temperature);
  if (options.top_k > 0) keep_top_k(logits, options.top_k);
  if (options.top_p < 1) keep_top_p(logits, options.top_p);
  if (options.min_p > 0) keep_min_p(logits, options.min_p);
  if (options.typical_p < 1) keep_typical(logits, options.typical_p);
}

std::int32_t argmax(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::int32_t draw(std::span<const float> logits, double u) {
  const float top = largest(logits);
  const double target = u * exp_sum(logits, top);
  double sum = 0;
  std::int32_t last = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] == kRemoved) continue;
    last = static_cast<std::int32_t>(i);
    sum += std::exp(static_cast<double>(logits[i]) - top);
    if (sum > target) break;
  }
  return last;
}

std::int32_t require_token(std::int32_t likeliest) {
  if (likeliest >= 0) return likeliest;
  fail(ErrorKind::kCorrupt,
       "sampling: a logit of the model is NaN or infinite; its weights or its arithmetic are "
       "broken");
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {
  validate(options);
}

bool Sampler::takes_likeliest() const {
  return options_.temperature == 0 && options_.logit_bias.empty() &&
         options_.repetition_penalty == 1 && !counts_tokens(options_);
}

std::int32_t Sampler::sample(std::span<const float> logits, std::span<const std::int32_t> context) {
  require_sane(logits);
  for (const auto& [id, bias] : options_.logit_bias) {
    if (static_cast<std::size_t>(id) >= logits.size()) {
      fail(ErrorKind::kUsage, "sampling: the logit bias names token {}, the vocabulary has {}", id,
           logits.size());
    }
  }
  row_.assign(logits.begin(), logits.end());
  apply_filters(options_, context, row_, generated_);
  const std::int32_t id = options_.temperature == 0
                              ? argmax(row_)
                              : draw(row_, static_cast<double>(random_() >> 11) * 0x1p-53);
  if (counts_tokens(options_)) ++generated_[id];
  return id;
}

}  // namespace nibble
