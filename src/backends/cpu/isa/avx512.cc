// The kernels of the avx512 level. Compiled with its own flags: see kernel_table.h for what must
// not be included here.
#include <immintrin.h>

#include "backends/cpu/table_panel_kernels.h"

namespace nibble::cpu {
namespace {

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/vec_avx512.inl.h"
#include "backends/cpu/kernels/windows.inl.h"
#include "backends/cpu/kernels/unpack8_x86.inl.h"
#include "backends/cpu/kernels/codes_avx512.inl.h"
#include "backends/cpu/kernels/level.inl.h"
#include "backends/cpu/kernels/rope.inl.h"
// clang-format on

constexpr KernelTable make_table() {
  KernelTable table = level_table();
  table.rope = rope;
  return table;
}

}  // namespace

const KernelTable& avx512_kernels() {
  static constexpr KernelTable kTable = make_table();
  return kTable;
}

}  // namespace nibble::cpu
