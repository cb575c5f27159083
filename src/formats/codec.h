// Who encodes and decodes: kernels, and the threads that share the rows. Results are the same bits
// for any kernels and any number of threads.
#pragma once

#include <span>

#include "base/thread_pool.h"
#include "formats/span_kernels.h"

namespace nibble {

enum class Rounding {
  kNearest,
  kStochastic,  // to a neighbour with the probability of its nearness: right in the mean
};

struct Codec {
  const SpanKernels* spans = &scalar_spans();
  ThreadPool* pool = nullptr;  // null: the calling thread alone
  // Of elements; the scales that they share are rounded to nearest.
  Rounding rounding = Rounding::kNearest;
  // What stochastic rounding draws depends on it and the place of the element only.
  std::uint64_t seed = 0;
  // E[x_j^2] of the inputs that meet the columns: what the squared error of an element of each
  // column weighs, for formats that choose by it; empty: unknown.
  std::span<const float> importance = {};

  // body(begin, end) over the rows of a matrix of `cols` columns.
  template <class Body>
  void for_rows(std::int64_t rows, std::int64_t cols, const Body& body) const {
    if (pool == nullptr) return body(std::int64_t{0}, rows);
    constexpr std::int64_t kGrain = 16384;  // elements, so that short rows go several at a time
    pool->parallel_for(rows, (kGrain + cols - 1) / cols, body);
  }
};

}  // namespace nibble
