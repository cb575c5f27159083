// Factors of symmetric positive definite matrices, float64, row-major [n, n]. Results do not depend
// on the number of threads.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"

namespace nibble {

// a = L L^T: the lower triangle of `a` is replaced by L; what lies above the diagonal is neither
// read nor changed. False, with `a` in no particular state, when a pivot is not positive or not
// finite.
bool cholesky(std::span<double> a, std::int64_t n, ThreadPool& pool);

// The inverse of a lower triangle: `inverse` [n, n] gets L^-1, zeros above the diagonal.
void invert_lower(std::span<const double> l, std::int64_t n, std::span<double> inverse,
                  ThreadPool& pool);

}  // namespace nibble
