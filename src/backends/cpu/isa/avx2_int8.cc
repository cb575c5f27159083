// The byte kernels of the avx2 level. See kernel_table.h for what must not be included
// here.
#include <immintrin.h>

#include "backends/cpu/int8_kernels.h"

namespace nibble::cpu {
namespace {

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/vec_avx2.inl.h"
#include "backends/cpu/kernels/floats.inl.h"
#include "backends/cpu/kernels/tile_output.inl.h"
#include "backends/cpu/kernels/bytes_avx2.inl.h"
#include "backends/cpu/kernels/int8_rows.inl.h"
#include "backends/cpu/kernels/int8_panels.inl.h"
#include "backends/cpu/kernels/int8_direct.inl.h"
#include "backends/cpu/kernels/int8_blocked.inl.h"
// clang-format on

}  // namespace

const Int8Kernels& avx2_int8_kernels() {
  static constexpr Int8Kernels kTable = {
      .bytes = kWholeBytes,
      .direct_rows = kDirectRows,
      .quantize = int8_quantize,
      .direct = int8_direct,
      .blocked = int8_blocked,
  };
  return kTable;
}

}  // namespace nibble::cpu
