// The sums and differences of a Hadamard transform (Sylvester's order), without its factor.
#pragma once

#include <cstdint>

namespace nibble {

// v[i] = sum over j of (-1)^popcount(i & j) v[j], in place; size a power of two. By sums and
// differences of halves of twice the size each time (Fino & Algazi 1976), in this order.
template <class T>
void hadamard_sums(T* v, std::int64_t size) {
  for (std::int64_t half = 1; half < size; half *= 2) {
    for (std::int64_t begin = 0; begin < size; begin += 2 * half) {
      for (std::int64_t i = begin; i < begin + half; ++i) {
        const T low = v[i], high = v[i + half];
        v[i] = low + high;
        v[i + half] = low - high;
      }
    }
  }
}

// The same of `size` rows of v [size, cols], column by column.
template <class T>
void hadamard_sums_of_rows(T* v, std::int64_t size, std::int64_t cols) {
  for (std::int64_t half = 1; half < size; half *= 2) {
    for (std::int64_t row = 0; row < size; ++row) {
      if ((row & half) != 0) continue;
      T* a = v + row * cols;
      T* b = a + half * cols;
      for (std::int64_t c = 0; c < cols; ++c) {
        const T low = a[c], high = b[c];
        a[c] = low + high;
        b[c] = low - high;
      }
    }
  }
}

}  // namespace nibble
