// Smoothing: channel j of an activation is divided by s_j and column j of the weights that read it
// multiplied by s_j, which leaves their product as it was (SmoothQuant, arXiv 2211.10438, eq. 4).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/dtype.h"

namespace nibble {

// s_j = activation_j^alpha / weight_j^(1 - alpha), where activation_j is max|X_j| (or another
// magnitude of the channel) and weight_j is max|W_j| over all rows of all readers. Inputs and
// result are at least 1e-5. The result is divided by the geometric mean of its least and largest
// value: a common factor changes nothing in weight-only quantization but 16-bit ranges. 0 <= alpha
// <= 1.
std::vector<float> smoothing_scales(std::span<const float> activation,
                                    std::span<const float> weight, double alpha);

// AWQ's scales (arXiv 2306.00978): s_j = activation_j^alpha / weight_j^(1 - alpha), or without the
// divisor; activation_j is the mean of |x_j|, weight_j that of |w_j| over the largest of its group.
// Inputs and divided as above.
std::vector<float> awq_scales(std::span<const float> activation, std::span<const float> weight,
                              double alpha, bool with_weight);

// The powers of two s_j = 2^-k_j, k_j = round(log2(max of all / largest_j)) at most `most`: x_j /
// s_j is raised towards the largest channel. Channels of zeros keep 1.
std::vector<float> power_of_two_shifts(std::span<const float> largest, int most);

// s_j = sqrt(made_j / read_j): rows divided by it and columns multiplied by it have one range
// (arXiv 1906.04721, eq. 11). 1 where either is zero.
std::vector<float> equalizing_scales(std::span<const float> made, std::span<const float> read);

// Adds to sum[j] the values |w_j| / max |w| of the group of j, for every row of w [rows, cols].
void add_relative_magnitudes(const float* w, std::int64_t rows, std::int64_t cols,
                             std::int64_t group, std::span<double> sum);

// Channels with the same entry of `rows` (they are made by one row of the producer) all get the
// largest of their values.
void tie_by_max(std::span<float> values, std::span<const std::int64_t> rows);

// max_abs[j] = max(max_abs[j], max over rows of |w[., j]|), w [rows, cols].
void column_max_abs(const float* w, std::int64_t rows, std::int64_t cols, std::span<float> max_abs,
                    ThreadPool& pool);

// Scales near `s` for which the weight of a norm survives rounding to its stored type: with g =
// offset + weight and g' the rounded g / s, the result is g / g'. The folded function is then the
// same to float32 rounding even after the norm is stored in 16 bits.
std::vector<float> snap_to_stored_norm(std::span<const float> s, std::span<const float> weight,
                                       float offset, DType stored);

}  // namespace nibble
