#include <algorithm>

#include "ops/axpy.h"
#include "ops/reference/reference.h"

namespace nibble::reference {

// Rows share a tile of b while it is in cache. Sums are taken in the order of k, whatever the
// tiles.
void subtract_product(const SubtractProductArgs& args, ExecContext& context) {
  constexpr std::int64_t kGrain = 8, kCols = 512;
  constexpr std::int64_t kTerms = 128;  // a multiple of what subtract_products() adds at once
  context.pool.parallel_for(args.m, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t col = 0; col < args.n; col += kCols) {
      const std::int64_t cols = std::min(kCols, args.n - col);
      for (std::int64_t t = 0; t < args.k; t += kTerms) {
        for (std::int64_t row = begin; row < end; ++row) {
          subtract_products(args.c + row * args.c_stride + col, cols,
                            args.a + row * args.a_stride + t, args.b + t * args.b_stride + col,
                            args.b_stride, std::min(kTerms, args.k - t));
        }
      }
    }
  });
}

}  // namespace nibble::reference
