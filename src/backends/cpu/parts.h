// One parallel loop over several ranges that lie one after the other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"

namespace nibble::cpu {

// Calls body(part, begin, end) over disjoint chunks that cover [0, counts[part]) of every part.
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

}  // namespace nibble::cpu
