// Calls of one x on weights in panels, whose kernels read rows of x that were rounded before.
#pragma once

#include <algorithm>
#include <vector>

#include "backends/cpu/panel_weight.h"
#include "backends/cpu/parts.h"
#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cpu {

// For some rows of x at a time: allocate(m, cols) is memory for m of them, round(x, i, memory)
// makes the i-th, and then multiply(call, memory, begin, m, first, last), on all threads, is panels
// [first, last) of a call times rows [begin, begin + m) of x.
template <class Allocate, class Round, class Multiply>
void run_on_panels(std::span<const LinearArgs> calls, ExecContext& context,
                   const Allocate& allocate, const Round& round, const Multiply& multiply) {
  constexpr std::int64_t kMaxRows = 512;    // rounded activations at once: they stay in the caches
  const LinearArgs& input = calls.front();  // of all calls
  const std::vector<std::int64_t> panels = panel_counts(calls);
  for (std::int64_t begin = 0; begin < input.m; begin += kMaxRows) {
    const std::int64_t m = std::min(kMaxRows, input.m - begin);
    const auto rows = allocate(m, input.w->canonical.cols);
    const float* x = input.x + begin * input.x_stride;
    context.pool.parallel_for(m, 16, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) round(x + i * input.x_stride, i, rows);
    });
    parallel_for_parts(context.pool, panels,
                       [&](std::size_t part, std::int64_t first, std::int64_t last) {
                         multiply(calls[part], rows, begin, m, first, last);
                       });
  }
}

}  // namespace nibble::cpu
