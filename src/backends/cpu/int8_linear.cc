// Linear on byte codes: activations are rounded to bytes by block, weights were repacked at load.
#include "backends/cpu/drivers.h"
#include "backends/cpu/int8_kernels.h"
#include "backends/cpu/panel_weight.h"
#include "backends/cpu/rounded_panels.h"
#include "backends/cpu/scratch.h"

namespace nibble::cpu {
namespace {

// Bytes, then three numbers a block.
Int8Rows allocate_rows(std::int64_t m, std::int64_t cols) {
  thread_local Scratch bytes;
  thread_local Scratch numbers;
  Int8Rows rows;
  // Rows a power of two apart would compete for the same sets of the caches.
  rows.stride = cols + 64;
  rows.blocks = cols / kInt8Block;
  rows.q = reinterpret_cast<unsigned char*>(bytes.floats(m * rows.stride / 4));
  rows.scale = numbers.floats(3 * m * rows.blocks);
  rows.offset = rows.scale + m * rows.blocks;
  rows.sum = rows.offset + m * rows.blocks;
  return rows;
}

}  // namespace

Support int8_fits(const Int8Kernels& kernels, const LinearArgs& args) {
  return panels_fit(kernels.token, args);
}

void run_int8(const Int8Kernels& kernels, std::span<const LinearArgs> calls, ExecContext& context) {
  run_on_panels(calls, context, allocate_rows, kernels.quantize,
                [&](const LinearArgs& call, const Int8Rows& rows, std::int64_t begin,
                    std::int64_t m, std::int64_t first, std::int64_t last) {
                  thread_local Scratch scratch;
                  Int8Task task = {.w = panels_of(call)->view(),
                                   .x = rows,
                                   .m = m,
                                   .out = panel_output(call, begin),
                                   .scratch = reinterpret_cast<unsigned char*>(scratch.floats(
                                       int8_scratch_bytes(call.w->canonical.cols) / 4))};
                  const auto run = m <= kernels.direct_rows ? kernels.direct : kernels.blocked;
                  for (task.panel = first; task.panel < last; ++task.panel) run(task);
                });
}

}  // namespace nibble::cpu
