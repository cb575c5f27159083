#include "ops/reference/reference.h"

namespace nibble::reference {

void scale(const ScaleArgs& args, ExecContext& context) {
  constexpr std::int64_t kGrain = 8;
  context.pool.parallel_for(args.rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* const x = args.x + i * args.cols;
      float* const y = args.y + i * args.cols;
      const float divisor = args.divisors == nullptr ? 1.0f : args.divisors[i];
      if (args.factors == nullptr) {
        for (std::int64_t j = 0; j < args.cols; ++j) y[j] = x[j] / divisor;
      } else {
        for (std::int64_t j = 0; j < args.cols; ++j) y[j] = x[j] * args.factors[j] / divisor;
      }
    }
  });
}

}  // namespace nibble::reference
