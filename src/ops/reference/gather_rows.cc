#include <algorithm>

#include "ops/reference/reference.h"

namespace nibble::reference {

void gather_rows(const GatherRowsArgs& args, ExecContext& context) {
  const auto count = static_cast<std::int64_t>(args.index.size());
  context.pool.parallel_for(count, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* x = args.x + args.index[static_cast<std::size_t>(i)] * args.cols;
      std::copy(x, x + args.cols, args.out + i * args.cols);
    }
  });
}

}  // namespace nibble::reference
