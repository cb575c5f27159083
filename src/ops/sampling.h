// From a row of logits to a token: the filters that need nothing but the row, and the draw. Pure
// functions; a removed token gets -infinity.
//
// The filters follow transformers' LogitsProcessors (generation/logits_process.py, 5.17).
#pragma once

#include <cstdint>
#include <span>

#include "ops/args.h"

namespace nibble {

// Where the quotient of the largest logit is no finite number, only that one stays (the lowest id
// among equals).
void apply_temperature(std::span<float> logits, float temperature);
// Removes tokens below the k-th largest logit (ties with it stay).
void keep_top_k(std::span<float> logits, std::int64_t k);
// Removes the least probable tokens as long as their probabilities sum to no more than 1 - p; the
// most probable one always stays. Among equal logits the higher ids are removed first.
void keep_top_p(std::span<float> logits, float p);
// Removes tokens whose probability is below p times that of the most probable one.
void keep_min_p(std::span<float> logits, float p);
// Those of them that the choice, of a temperature above 0, switches on, in that order.
void apply_choice(const TokenChoice& choice, std::span<float> logits);

// Sum of exp(logit - top) over the row.
double exp_sum(std::span<const float> logits, float top);

// The largest logit, the lowest id among equals.
std::int32_t argmax(std::span<const float> logits);
// The token at which the cumulative softmax, in the order of ids, passes u in [0, 1).
std::int32_t draw(std::span<const float> logits, double u);

}  // namespace nibble
