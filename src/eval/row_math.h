// Numbers of one row of logits, in double precision. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <span>

namespace nibble {

// True when no element is NaN or infinite.
bool all_finite(std::span<const float> row);

// log(sum(exp(row))). The row is finite and not empty.
double log_sum_exp(std::span<const float> row);

// -log softmax(row)[target] in nats, or NaN when the row holds a NaN or an infinity.
double negative_log_likelihood(std::span<const float> row, std::int32_t target);

// KL(softmax(p) || softmax(q)) = E_p[p_i - q_i] - logsumexp(p) + logsumexp(q), in nats, never
// negative; and both normalisers, which the same pass gives. The rows are finite and equally long.
struct Divergence {
  double kl = 0;
  double p_log_sum_exp = 0;
  double q_log_sum_exp = 0;
};
Divergence divergence_of_rows(std::span<const float> p, std::span<const float> q);

}  // namespace nibble
