// How linears are cut into tasks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backends/cpu/rounding.h"
#include "base/thread_pool.h"

namespace nibble::cpu {

// One parallel loop over several ranges that lie one after the other: calls body(part, begin, end)
// over disjoint chunks that cover [0, counts[part]) of every part.
template <class Body>
void parallel_for_parts(ThreadPool& pool, const std::vector<std::int64_t>& counts,
                        const Body& body) {
  std::int64_t total = 0;
  for (const std::int64_t count : counts) total += count;
  pool.parallel_for(total, 1, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t before = 0;
    for (std::size_t part = 0; part < counts.size() && before < end; ++part) {
      const std::int64_t first = std::max(begin - before, std::int64_t{0});
      const std::int64_t last = std::min(end - before, counts[part]);
      if (first < last) body(part, first, last);
      before += counts[part];
    }
  });
}

// Rows of a weight that one task takes: few enough for four tasks a thread, as many as pay, at most
// `most`; a multiple of `step`.
inline std::int64_t task_rows(std::int64_t rows, const ThreadPool& pool, std::int64_t step,
                              std::int64_t most) {
  return std::clamp(round_up(ceil_div(rows, 4 * pool.threads()), step), step, most);
}

}  // namespace nibble::cpu
