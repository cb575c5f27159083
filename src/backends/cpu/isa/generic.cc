// The kernels of the generic level, in the compiler's own vectors, for any machine.
#include "backends/cpu/table_panel_kernels.h"
#include "base/half.h"

namespace nibble::cpu {
namespace {

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/vec_generic.inl.h"
#include "backends/cpu/kernels/codes_generic.inl.h"
#include "backends/cpu/kernels/level.inl.h"
// clang-format on

}  // namespace

const KernelTable& generic_kernels() {
  static constexpr KernelTable kTable = level_table();
  return kTable;
}

}  // namespace nibble::cpu
