#include <algorithm>
#include <cmath>

#include "ops/reference/reference.h"

namespace nibble::reference {

void column_sums(const ColumnSumsArgs& args, ExecContext& context) {
  constexpr std::int64_t kGrain = 64;
  context.pool.parallel_for(args.cols, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = 0; row < args.rows; ++row) {
      const float* const x = args.x + row * args.cols;
      for (std::int64_t j = begin; j < end; ++j) {
        const float magnitude = std::abs(x[j]);
        args.max_abs[j] = std::max(args.max_abs[j], magnitude);
        args.sum_squares[j] += static_cast<double>(x[j]) * static_cast<double>(x[j]);
        args.sum_abs[j] += static_cast<double>(magnitude);
      }
    }
  });
}

}  // namespace nibble::reference
