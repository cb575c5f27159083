// Linear of rows that are rounded to a format of activations first.
#include <algorithm>
#include <utility>

#include "backends/cpu/drivers.h"
#include "backends/cpu/scratch.h"

namespace nibble::cpu {
namespace {

// x of a call, rounded, in rows that lie end to end.
void round_rows(const LinearArgs& args, float* rounded, ExecContext& context) {
  const std::int64_t cols = args.w->canonical.cols;
  const ActivationCall call = args.activations->observe(args.x, args.x_stride, args.m, cols);
  context.pool.parallel_for(args.m, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      args.activations->round_row(call, args.x + row * args.x_stride, cols, rounded + row * cols);
    }
  });
}

}  // namespace

Support rounded_supports(const LinearArgs& args, const DeviceCaps&) {
  return args.activations != nullptr ? Support::yes() : Support::no("x is not to be rounded");
}

void run_rounded(std::span<const LinearArgs> calls, ExecContext& context) {
  thread_local Scratch scratch;
  const LinearArgs& first = calls.front();
  const std::int64_t cols = first.w->canonical.cols;
  float* const rounded = scratch.floats(first.m * cols);
  const ActivationFormat* format = nullptr;
  for (LinearArgs call : calls) {
    if (format != call.activations) round_rows(call, rounded, context);
    format = std::exchange(call.activations, nullptr);
    call.x = rounded;
    call.x_stride = cols;
    run_blocked(best_level(context.caps), call, context);
  }
}

}  // namespace nibble::cpu
