#include <limits>

#include "ops/reference/reference.h"

namespace nibble::reference {
namespace {

std::int32_t largest_of(const float* x, std::int64_t cols) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float largest = -kInfinity;
  std::int64_t at = -1;
  for (std::int64_t c = 0; c < cols; ++c) {
    if (!(x[c] < kInfinity)) return -1;
    if (x[c] > largest) {
      largest = x[c];
      at = c;
    }
  }
  return static_cast<std::int32_t>(at);
}

}  // namespace

void argmax(const ArgmaxArgs& args, ExecContext& context) {
  context.pool.parallel_for(args.rows, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      args.chosen[r] = largest_of(args.x + r * args.cols, args.cols);
    }
  });
}

}  // namespace nibble::reference
