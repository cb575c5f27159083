// Second moments of a linear's input with their correlations: what error feedback and searches by
// output error need of the calibration text.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

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

  // E[x_j^2]; empty when no row was seen.
  std::vector<float> second_moment() const;
  // E[|x_j|]; empty when no row was seen.
  std::vector<float> mean_abs() const;
  bool is_finite() const;
};

// sum over rows of (w - q) M (w - q)^T / rows: the mean squared error of the outputs x w^T of all
// rows of w and q [rows, channels], summed over the outputs.
double output_error(const Hessian& hessian, const float* w, const float* q, std::int64_t rows);

}  // namespace nibble
