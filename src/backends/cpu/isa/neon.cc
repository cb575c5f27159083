// The kernels of the neon level. See kernel_table.h for what must not be included here.
#include <arm_neon.h>

#include "backends/cpu/table_panel_kernels.h"

namespace nibble::cpu {
namespace {

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/vec_neon.inl.h"
#include "backends/cpu/kernels/windows.inl.h"
#include "backends/cpu/kernels/codes_neon.inl.h"
#include "backends/cpu/kernels/level.inl.h"
#include "backends/cpu/kernels/rope.inl.h"
// clang-format on

constexpr KernelTable make_table() {
  KernelTable table = level_table();
  table.rope = rope;
  return table;
}

}  // namespace

const KernelTable& neon_kernels() {
  static constexpr KernelTable kTable = make_table();
  return kTable;
}

}  // namespace nibble::cpu
