// From logits to the next token: the filters of Hugging Face transformers, in its order, and a
// draw.
//
// The filters are pure functions on one row of logits (those that need nothing else:
// ops/sampling.h); a removed token gets -infinity. They follow transformers' LogitsProcessors
// (generation/logits_process.py, 5.17) applied as `generate` applies them: bias, repetition
// penalty, temperature, top-k, top-p, min-p, typical. The frequency and presence penalties, which
// it lacks, are those of OpenAI's API and stand where vLLM has them: after the repetition penalty.
#pragma once

#include <cstdint>
#include <deque>
#include <random>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ops/sampling.h"

namespace nibble {

struct SamplingOptions {
  float temperature = 0;         // 0 = greedy: of the rest only bias and penalties are applied
  std::int64_t top_k = 0;        // 0 = off
  float top_p = 1;               // (0, 1]; 1 = off
  float min_p = 0;               // [0, 1]; 0 = off
  float typical_p = 1;           // (0, 1]; 1 = off
  float repetition_penalty = 1;  // > 0; 1 = off
  float frequency_penalty = 0;   // [-2, 2]; 0 = off
  float presence_penalty = 0;    // [-2, 2]; 0 = off
  // Added to the logits of these tokens, each given once; [-100, 100].
  std::vector<std::pair<std::int32_t, float>> logit_bias;
  std::uint64_t seed = 0;
};

// kUsage, naming the option, when a value is outside its range or not finite.
void validate(const SamplingOptions& options);

// Logits of tokens that occur in `context` (prompt and generated text alike, each once): divided by
// the penalty when positive, multiplied by it when negative. Ids must lie inside the row.
void apply_repetition_penalty(std::span<float> logits, std::span<const std::int32_t> context,
                              float penalty);
// How often a token was generated (the prompt does not count).
using TokenCounts = std::unordered_map<std::int32_t, std::int64_t>;
// logit -= count * frequency + (count > 0) * presence, from OpenAI's API reference.
void apply_count_penalties(std::span<float> logits, const TokenCounts& generated, float frequency,
                           float presence);
// Ids must lie inside the row.
void apply_logit_bias(std::span<float> logits,
                      std::span<const std::pair<std::int32_t, float>> bias);
// Keeps the tokens whose information content is nearest to the entropy, as many as it takes for
// their probabilities to reach p (Meister et al. 2022, "Locally typical sampling"); ties stay.
void keep_typical(std::span<float> logits, float p);

// All of the above that the options switch on: bias, penalties and, unless the temperature is 0,
// the rest in that order.
void apply_filters(const SamplingOptions& options, std::span<const std::int32_t> context,
                   std::span<float> logits, const TokenCounts& generated = {});

// One sequence's sampler. The same seed and logits give the same tokens on every platform (the
// generator is std::mt19937_64, whose output the standard fixes). Not thread-safe.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);

  // Whether the next token follows from the logits alone: then a backend may choose it, and its
  // choice goes to accept().
  bool needs_only_logits() const;
  // How the token is to be chosen that follows after `ahead` others from here on.
  TokenChoice choice(std::size_t ahead = 0);
  // Goes on by one token, and gives it back; kCorrupt when it is -1 (see ArgmaxArgs).
  std::int32_t accept(std::int32_t chosen);

  // The next token. `context` holds every id so far, the prompt included. kCorrupt when a logit is
  // NaN or +infinity, or when all are -infinity: the model's numbers are broken, and any choice
  // would hide it. kUsage when the bias names a token that the row does not have.
  std::int32_t sample(std::span<const float> logits, std::span<const std::int32_t> context);

 private:
  double uniform(std::size_t ahead);

  SamplingOptions options_;
  std::mt19937_64 random_;
  std::deque<double> uniforms_;  // drawn for choices that are not made yet
  TokenCounts generated_;        // filled only for penalties that count
  std::vector<float> row_;
};

}  // namespace nibble
