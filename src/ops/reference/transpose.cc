#include "ops/reference/reference.h"

namespace nibble::reference {

void transpose(const TransposeArgs& args, ExecContext& context) {
  constexpr std::int64_t kGrain = 16;  // columns, so that a cache line of x is read once
  context.pool.parallel_for(args.cols, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = 0; row < args.rows; ++row) {
      for (std::int64_t col = begin; col < end; ++col) {
        args.y[col * args.rows + row] = args.x[row * args.cols + col];
      }
    }
  });
}

}  // namespace nibble::reference
