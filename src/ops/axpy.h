// The one inner loop of the factorizations and of error feedback.
#pragma once

#include <cstdint>

namespace nibble {

// c[0, count) -= sum over t < terms of a[t] * b[t * stride + (0, count)), summed in an order that
// depends on nothing but `terms`. c must not overlap a or b.
template <class T>
void subtract_products(T* __restrict c, std::int64_t count, const T* __restrict a,
                       const T* __restrict b, std::int64_t stride, std::int64_t terms) {
  std::int64_t t = 0;
  for (; t + 4 <= terms; t += 4) {  // four at once: c is read and written a quarter as often
    const T *b0 = b + t * stride, *b1 = b0 + stride, *b2 = b1 + stride, *b3 = b2 + stride;
    const T a0 = a[t], a1 = a[t + 1], a2 = a[t + 2], a3 = a[t + 3];
    for (std::int64_t j = 0; j < count; ++j) {
      c[j] -= (a0 * b0[j] + a1 * b1[j]) + (a2 * b2[j] + a3 * b3[j]);
    }
  }
  for (; t < terms; ++t) {
    const T* row = b + t * stride;
    for (std::int64_t j = 0; j < count; ++j) c[j] -= a[t] * row[j];
  }
}

}  // namespace nibble
