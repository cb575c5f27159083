#include "ops/reference/kv_access.h"
#include "ops/reference/reference.h"

namespace nibble::reference {

void kv_write(const KvWriteArgs& args, ExecContext& context) {
  context.pool.parallel_for(args.rows, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t h = 0; h < args.heads; ++h) {
        encode_kv_row(args.type, args.x.data + t * args.x.row_stride + h * args.x.head_stride,
                      args.head_dim, kv_row(args.cache, t, h));
      }
    }
  });
}

}  // namespace nibble::reference
