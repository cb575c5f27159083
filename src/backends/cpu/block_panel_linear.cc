// Linear of rows that are rounded to signed bytes on super-blocks of ggml in panels.
#include "backends/cpu/block_panel_weight.h"
#include "backends/cpu/drivers.h"
#include "backends/cpu/rounded_panels.h"
#include "backends/cpu/scratch.h"

namespace nibble::cpu {
namespace {

SignedRows allocate_signed_rows(std::int64_t m, std::int64_t cols) {
  thread_local Scratch bytes;
  thread_local Scratch numbers;
  SignedRows rows;
  rows.stride = cols + 64;  // rows a power of two apart would compete for the same sets
  rows.blocks = cols / kInt8Block;
  rows.q = reinterpret_cast<signed char*>(bytes.floats(m * rows.stride / 4));
  rows.scale = numbers.floats(4 * m * rows.blocks);
  rows.sum = rows.scale + m * rows.blocks;
  rows.sums = reinterpret_cast<std::int32_t*>(rows.sum + m * rows.blocks);
  return rows;
}

}  // namespace

Support block_panels_fit(const Int8Kernels& kernels, const LinearArgs& args) {
  const BlockPanelWeight* const weight = block_panels_of(args);
  if (weight == nullptr) return Support::no("the weight is in no panels of super-blocks");
  if (!kernels.block_panels.all_types && weight->view().type == BlockStorage::kIq4Xs) {
    return Support::no("products of bytes overflow");
  }
  return Support::yes();
}

void run_block_panels(const Int8Kernels& kernels, std::span<const LinearArgs> calls,
                      ExecContext& context) {
  run_on_panels(calls, context, allocate_signed_rows, kernels.block_panels.quantize,
                [&](const LinearArgs& call, const SignedRows& rows, std::int64_t begin,
                    std::int64_t m, std::int64_t first, std::int64_t last) {
                  BlockPanelTask task = {.w = block_panels_of(call)->view(),
                                         .x = rows,
                                         .m = m,
                                         .out = panel_output(call, begin)};
                  for (task.panel = first; task.panel < last; ++task.panel) {
                    kernels.block_panels.run(task);
                  }
                });
}

}  // namespace nibble::cpu
