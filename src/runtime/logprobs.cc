#include "runtime/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace nibble {

TokenLogprobs logprobs_of(std::span<const float> logits, std::int32_t chosen, std::int64_t count) {
  const auto top = static_cast<double>(*std::ranges::max_element(logits));
  double sum = 0;
  for (const float v : logits) sum += std::exp(static_cast<double>(v) - top);
  const double log_sum = top + std::log(sum);
  const auto of = [&](std::int32_t id) {
    const double logit = logits[static_cast<std::size_t>(id)];
    return TokenLogprob{id, static_cast<float>(logit - log_sum)};
  };
  TokenLogprobs result = {of(chosen), {}};
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto last = order.begin() + std::clamp<std::int64_t>(count, 0, std::ssize(order));
  std::partial_sort(order.begin(), last, order.end(), [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)];
    const float y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (auto it = order.begin(); it != last; ++it) result.likeliest.push_back(of(*it));
  return result;
}

}  // namespace nibble
