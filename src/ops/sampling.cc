#include "ops/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace nibble {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();

float largest(std::span<const float> logits) {
  return *std::max_element(logits.begin(), logits.end());
}

}  // namespace

double exp_sum(std::span<const float> logits, float top) {
  double sum = 0;
  for (const float v : logits) sum += std::exp(static_cast<double>(v) - top);
  return sum;
}

void apply_temperature(std::span<float> logits, float temperature) {
  const std::int32_t first = argmax(logits);
  const float top = logits[static_cast<std::size_t>(first)];
  if (std::isfinite(top / temperature)) {
    for (float& v : logits) v /= temperature;
  } else {
    std::ranges::fill(logits, kRemoved);
    logits[static_cast<std::size_t>(first)] = top;
  }
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

void apply_choice(const TokenChoice& choice, std::span<float> logits) {
  if (choice.temperature != 1) apply_temperature(logits, choice.temperature);
  if (choice.top_k > 0) keep_top_k(logits, choice.top_k);
  if (choice.top_p < 1) keep_top_p(logits, choice.top_p);
  if (choice.min_p > 0) keep_min_p(logits, choice.min_p);
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

}  // namespace nibble
