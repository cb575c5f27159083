#include "ops/reference/kv_access.h"
#include "ops/reference/reference.h"

namespace nibble::reference {
namespace {

template <class T>
void write_rows(const KvWriteArgs& args, const HeadView<T>& x, std::int64_t begin,
                std::int64_t rows, const HeadView<void>& cache, ExecContext& context) {
  context.pool.parallel_for(rows, 8, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t t = first; t < end; ++t) {
      for (std::int64_t h = 0; h < args.heads; ++h) {
        encode_kv_row(args.type, x.data + (begin + t) * x.row_stride + h * x.head_stride,
                      args.head_dim, kv_row(cache, t, h));
      }
    }
  });
}

}  // namespace

void kv_write(const KvWriteArgs& args, ExecContext& context) {
  if (args.rope != nullptr) {
    rope(*args.rope, context);
    rope(rope_of_keys(args), context);
  }
  for (const KvWriteSequence& sequence : args.sequences) {
    write_rows(args, args.k, sequence.begin, sequence.rows, sequence.k, context);
    write_rows(args, args.v, sequence.begin, sequence.rows, sequence.v, context);
  }
}

}  // namespace nibble::reference
