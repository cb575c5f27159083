// Log-probabilities of tokens under a row of logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nibble {

struct TokenLogprob {
  std::int32_t id = 0;
  float logprob = 0;  // in nats
};

struct TokenLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> likeliest;  // the most probable first, lower ids among equals
};

// log softmax(logits) of one token and of the `count` likeliest. The sum is taken in double. The
// row is not empty and holds no NaN. Thread-safe.
TokenLogprobs logprobs_of(std::span<const float> logits, std::int32_t chosen, std::int64_t count);

}  // namespace nibble
