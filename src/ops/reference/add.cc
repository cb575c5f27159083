#include "ops/reference/reference.h"

namespace nibble::reference {

void add(const AddArgs& args, ExecContext& context) {
  context.pool.parallel_for(args.count, 16384, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) args.y[i] += args.scale * args.x[i];
  });
}

}  // namespace nibble::reference
