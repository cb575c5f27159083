// The byte kernels of the neon level for machines with dotprod. See kernel_table.h for what must
// not be included here.
#include <arm_neon.h>

#include "backends/cpu/block_panel_kernels.h"

namespace nibble::cpu {
namespace {

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/vec_neon.inl.h"
#include "backends/cpu/kernels/dot_neon_signed.inl.h"
#include "backends/cpu/kernels/bytes_neon.inl.h"
#include "backends/cpu/kernels/int8_level.inl.h"
// clang-format on

}  // namespace

const Int8Kernels& neon_dotprod_kernels() {
  static constexpr Int8Kernels kTable = int8_table();
  return kTable;
}

}  // namespace nibble::cpu
