// Error bounds of numeric tests, in one place, from number formats and sizes.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace nibble::test {

// Unit roundoff: the largest relative error of one rounding to nearest (2^-24 for F32).
double unit_roundoff(DType dtype);

// Bound on |computed - exact| of a dot product of length n evaluated in `accumulator` precision in
// any order: gamma_n * sum |x_i w_i|, gamma_n = n u / (1 - n u) (Higham, Accuracy and
// Stability, 3.1).
double dot_error_bound(std::int64_t n, double sum_abs_products, DType accumulator = DType::kF32);

// Largest |actual - expected|, and NaN when either side holds one (so that a comparison with <
// fails).
double max_abs_error(std::span<const float> actual, std::span<const float> expected);

// |actual - expected| / |expected| in the Frobenius norm; NaN when a NaN is there, infinity when
// only `expected` is zero.
double relative_error(std::span<const float> actual, std::span<const float> expected);

}  // namespace nibble::test
