#include <vector>

#include "ops/reference/reference.h"
#include "ops/sampling.h"

namespace nibble::reference {
namespace {

std::int32_t drawn_from(std::span<const float> row, const TokenChoice& choice,
                        std::vector<float>& scratch) {
  scratch.assign(row.begin(), row.end());
  apply_choice(choice, scratch);
  return draw(scratch, choice.u);
}

}  // namespace

void sample(const SampleArgs& args, ExecContext& context) {
  // Which rows are broken, in `chosen`.
  argmax({args.x, args.rows, args.cols, args.chosen}, context);
  context.pool.parallel_for(args.rows, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch;
    for (std::int64_t r = begin; r < end; ++r) {
      if (args.chosen[r] < 0 || args.choices[static_cast<std::size_t>(r)].temperature == 0)
        continue;
      const std::span<const float> row(args.x + r * args.cols, static_cast<std::size_t>(args.cols));
      args.chosen[r] = drawn_from(row, args.choices[static_cast<std::size_t>(r)], scratch);
    }
  });
}

}  // namespace nibble::reference
