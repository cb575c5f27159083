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

TokenChoice choice_of(const SamplingOptions& options, double u) {
  TokenChoice choice;
  choice.temperature = options.temperature;
  choice.top_p = options.top_p;
  choice.min_p = options.min_p;
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  choice.top_k = static_cast<std::int32_t>(std::min(options.top_k, kMost));
  choice.u = u;
  return choice;
}

bool counts_tokens(const SamplingOptions& options) {
  return options.frequency_penalty != 0 || options.presence_penalty != 0;
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

void keep_typical(std::span<float> logits, float p) {
  const double top = *std::max_element(logits.begin(), logits.end());
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
  apply_choice(choice_of(options, 0), logits);
  if (options.typical_p < 1) keep_typical(logits, options.typical_p);
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {
  validate(options);
}

bool Sampler::needs_only_logits() const {
  return options_.logit_bias.empty() && options_.repetition_penalty == 1 &&
         !counts_tokens(options_) && (options_.temperature == 0 || options_.typical_p == 1);
}

double Sampler::uniform(std::size_t ahead) {
  while (ahead >= uniforms_.size()) {
    uniforms_.push_back(static_cast<double>(random_() >> 11) * 0x1p-53);
  }
  return uniforms_[ahead];
}

TokenChoice Sampler::choice(std::size_t ahead) {
  return choice_of(options_, options_.temperature == 0 ? 0 : uniform(ahead));
}

std::int32_t Sampler::accept(std::int32_t chosen) {
  if (chosen < 0) {
    fail(ErrorKind::kCorrupt,
         "sampling: a logit of the model is NaN or infinite; its weights or its arithmetic are "
         "broken");
  }
  if (!uniforms_.empty()) uniforms_.pop_front();
  return chosen;
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
  const std::int32_t id = accept(options_.temperature == 0 ? argmax(row_) : draw(row_, uniform(0)));
  if (counts_tokens(options_)) ++generated_[id];
  return id;
}

}  // namespace nibble
