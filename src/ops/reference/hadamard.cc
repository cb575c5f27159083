#include "formats/hadamard.h"

#include <cmath>

#include "ops/reference/reference.h"

namespace nibble::reference {
namespace {

void mix(float* x, std::int64_t n) {
  hadamard_sums(x, n);
  const float scale = 1 / std::sqrt(static_cast<float>(n));
  for (std::int64_t i = 0; i < n; ++i) x[i] *= scale;
}

}  // namespace

void hadamard(const HadamardArgs& args, ExecContext& context) {
  const std::int64_t n = hadamard_size(args.cols);
  context.pool.parallel_for(args.rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (float* x = args.x + begin * args.cols; x < args.x + end * args.cols; x += n) mix(x, n);
  });
}

}  // namespace nibble::reference
