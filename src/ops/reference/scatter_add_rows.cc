#include "ops/reference/reference.h"

namespace nibble::reference {

void scatter_add_rows(const ScatterAddRowsArgs& args, ExecContext& context) {
  const auto count = static_cast<std::int64_t>(args.index.size());
  context.pool.parallel_for(count, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float weight = args.weights[static_cast<std::size_t>(i)];
      const float* x = args.x + i * args.cols;
      float* y = args.y + args.index[static_cast<std::size_t>(i)] * args.cols;
      for (std::int64_t c = 0; c < args.cols; ++c) y[c] += weight * x[c];
    }
  });
}

}  // namespace nibble::reference
