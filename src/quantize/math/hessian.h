// Second moments of a linear's input with their correlations: what error feedback and searches by
// output error need of the calibration text.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"

namespace nibble {

// Sums over the rows x of an activation [rows, channels].
struct Hessian {
  std::int64_t channels = 0;
  std::int64_t rows = 0;
  std::vector<double> moments;  // sum of x_i x_j, [channels, channels], symmetric
  std::vector<double> sum_abs;  // sum of |x_j|
  // Sum of (x'_i - x_i) x_j, [channels, channels], x' being the same input in the unquantized
  // model; empty unless asked for.
  std::vector<double> drift;
  // Sum of (r'_o - r_o) x_j, [outputs, channels], r being what the linear's result is added to (the
  // residual stream) and r' the same in the unquantized model; empty unless asked for and known.
  std::vector<double> residual;
  // Some of the rows, evenly spread over the text, [n, channels]; empty unless asked for.
  std::vector<float> samples;

  // E[x_j^2]; empty when no row was seen.
  std::vector<float> second_moment() const;
  // E[|x_j|]; empty when no row was seen.
  std::vector<float> mean_abs() const;
  // Of the diagonal of `moments`: the scale of damping.
  double mean_diagonal() const;
  bool is_finite() const;
};

// sum over rows of d M d^T / rows, d the rows of `difference` [rows, channels]: by how much,
// squared and summed over the outputs, x w^T changes on average when w does by d. Does not depend
// on the number of threads.
double output_error(const Hessian& hessian, std::span<const float> difference, ThreadPool& pool);

// With drift D: sum over the rows of |x' w - x q|^2, the wanted output x' w against that of other
// weights q on the inputs that are there, is d M d + 2 pull . d + (what q has no part in) for d = w
// - q and pull = w D. [rows, channels], as w; empty without a drift.
std::vector<float> drift_pull(const Hessian& hessian, const float* w, std::int64_t rows,
                              ThreadPool& pool);

// d M d + 2 pull . d, summed over rows of d = `difference` [rows, channels]; an empty pull is 0.
double pulled_error(const Hessian& hessian, std::span<const float> difference,
                    std::span<const float> pull, ThreadPool& pool);

}  // namespace nibble
