#include "ops/reference/kv_access.h"
#include "ops/reference/reference.h"

namespace nibble::reference {

void kv_write(const KvWriteArgs& args, ExecContext& context) {
  context.pool.parallel_for(args.rows, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t h = 0; h < args.heads; ++h) {
        const float* x = args.x.data + t * args.x.row_stride + h * args.x.head_stride;
        const std::int64_t at = t * args.cache.row_stride + h * args.cache.head_stride;
        for (std::int64_t d = 0; d < args.head_dim; ++d) {
          store_kv(args.cache.data, args.dtype, at + d, x[d]);
        }
      }
    }
  });
}

}  // namespace nibble::reference
