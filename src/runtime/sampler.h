// From logits to the next token: the filters of Hugging Face transformers, in its order, and a
// draw.
//
// The filters are pure functions on one row of logits; a removed token gets -infinity. They follow
// transformers' LogitsProcessors (generation/logits_process.py, 5.17) applied as `generate` applies
// them: repetition penalty, temperature, top-k, top-p, min-p.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace nibble {

struct SamplingOptions {
  float temperature = 0;         // 0 = greedy: the other filters but the penalty are not applied
  std::int64_t top_k = 0;        // 0 = off
  float top_p = 1;               // (0, 1]; 1 = off
  float min_p = 0;               // [0, 1]; 0 = off
  float repetition_penalty = 1;  // > 0; 1 = off
  std::uint64_t seed = 0;
};

// kUsage, naming the option, when a value is outside its range or not finite.
void validate(const SamplingOptions& options);

// Logits of tokens that occur in `context` (prompt and generated text alike, each once): divided by
// the penalty when positive, multiplied by it when negative. Ids must lie inside the row.
void apply_repetition_penalty(std::span<float> logits, std::span<const std::int32_t> context,
                              float penalty);
void apply_temperature(std::span<float> logits, float temperature);
// Removes tokens below the k-th largest logit (ties with it stay).
void keep_top_k(std::span<float> logits, std::int64_t k);
// Removes the least probable tokens as long as their probabilities sum to no more than 1 - p; the
// most probable one always stays. Among equal logits the higher ids are removed first.
void keep_top_p(std::span<float> logits, float p);
// Removes tokens whose probability is below p times that of the most probable one.
void keep_min_p(std::span<float> logits, float p);

// All of the above that the options switch on, in that order; with temperature 0 the penalty alone.
void apply_filters(const SamplingOptions& options, std::span<const std::int32_t> context,
                   std::span<float> logits);

// The largest logit, the lowest id among equals.
std::int32_t argmax(std::span<const float> logits);
// The token at which the cumulative softmax, in the order of ids, passes u in [0, 1).
std::int32_t draw(std::span<const float> logits, double u);

// One sequence's sampler. The same seed and logits give the same tokens on every platform (the
// generator is std::mt19937_64, whose output the standard fixes). Not thread-safe.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);

  // The next token. `context` holds every id so far, the prompt included. kCorrupt when a logit is
  // NaN or +infinity, or when all are -infinity: the model's numbers are broken, and any choice
  // would hide it.
  std::int32_t sample(std::span<const float> logits, std::span<const std::int32_t> context);

 private:
  SamplingOptions options_;
  std::mt19937_64 random_;
  std::vector<float> row_;
};

}  // namespace nibble
