// Linear of few rows, in float32, on weights of tables in panels.
#include <fmt/format.h>

#include "backends/cpu/drivers.h"
#include "backends/cpu/panel_weight.h"
#include "backends/cpu/parts.h"
#include "backends/cpu/table_panel_weight.h"

namespace nibble::cpu {
namespace {

// More are faster by blocks, which are decoded once a call.
constexpr std::int64_t kMostRows = 64;

}  // namespace

Support table_panels_fit(const KernelTable& kernels, const LinearArgs& args) {
  const TablePanelWeight* const weight = table_panels_of(args);
  if (weight == nullptr) return Support::no("the weight is in no panels of a table");
  if (weight->view().bits == 8 && kernels.lanes < 16) return Support::no("tables of 32 values");
  if (args.m <= kMostRows) return Support::yes();
  return Support::no(fmt::format("more than {} rows", kMostRows));
}

void run_table_panels(const KernelTable& kernels, const LinearArgs& args, ExecContext& context) {
  parallel_for_parts(context.pool, panel_counts({&args, 1}),
                     [&](std::size_t, std::int64_t first, std::int64_t last) {
                       TablePanelTask task = {.w = table_panels_of(args)->view(),
                                              .x = args.x,
                                              .x_stride = args.x_stride,
                                              .m = args.m,
                                              .out = panel_output(args, 0)};
                       for (task.panel = first; task.panel < last; ++task.panel) {
                         kernels.table_panels(task);
                       }
                     });
}

}  // namespace nibble::cpu
