// The byte kernels of the avx2 level. See kernel_table.h for what must not be included here.
#include <immintrin.h>

#include "backends/cpu/block_panel_kernels.h"

namespace nibble::cpu {
namespace {

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/vec_avx2.inl.h"
#include "backends/cpu/kernels/bytes_avx2.inl.h"
#include "backends/cpu/kernels/int8_level.inl.h"
// clang-format on

}  // namespace

const Int8Kernels& avx2_int8_kernels() {
  static constexpr Int8Kernels kTable = int8_table();
  return kTable;
}

}  // namespace nibble::cpu
