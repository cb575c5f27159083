#include <algorithm>
#include <vector>

#include "ops/reference/reference.h"

namespace nibble::reference {

void embed(const EmbedArgs& args, ExecContext& context) {
  const QuantTensor& table = *args.table;
  const auto count = static_cast<std::int64_t>(args.ids.size());
  context.pool.parallel_for(count, 8, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(table.cols));
    for (std::int64_t i = begin; i < end; ++i) {
      std::int32_t id = args.ids[static_cast<std::size_t>(i)];
      if (id < 0) {
        NIBBLE_CHECK(args.chosen != nullptr);
        id = std::max(args.chosen[-1 - id], 0);
      }
      NIBBLE_CHECK(id >= 0 && id < table.rows);
      table.format->decode(table, id, 0, table.cols, row.data());
      float* out = args.out + i * table.cols;
      for (std::int64_t c = 0; c < table.cols; ++c) {
        const float value = row[static_cast<std::size_t>(c)] * args.scale;
        out[c] = args.accumulate ? out[c] + value : value;
      }
    }
  });
}

}  // namespace nibble::reference
