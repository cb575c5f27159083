// The kernels of the avx512 level. Compiled with its own flags: see kernel_table.h for what must
// not be included here.
#include <immintrin.h>

#include "backends/cpu/kernel_table.h"

namespace nibble::cpu {
namespace {

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/vec_avx512.inl.h"
#include "backends/cpu/kernels/unpack8_x86.inl.h"
#include "backends/cpu/kernels/codes_avx512.inl.h"
#include "backends/cpu/kernels/floats.inl.h"
#include "backends/cpu/kernels/weights.inl.h"
#include "backends/cpu/kernels/gemv.inl.h"
#include "backends/cpu/kernels/tile_output.inl.h"
#include "backends/cpu/kernels/gemm.inl.h"
#include "backends/cpu/kernels/math.inl.h"
#include "backends/cpu/kernels/rows.inl.h"
#include "backends/cpu/kernels/rope.inl.h"
#include "backends/cpu/kernels/attention.inl.h"
#include "backends/cpu/kernels/probe.inl.h"
#include "backends/cpu/kernels/probe_int8_avx512.inl.h"
// clang-format on

}  // namespace

const KernelTable& avx512_kernels() {
  static constexpr KernelTable kTable = {
      .lanes = kLanes,
      .mr = kMr,
      .nr = kNr,
      .gemv_rows = 8,
      .attention_min_rows = 3,
      .decode_row = decode_row,
      .gemv = gemv,
      .pack_panel = pack_panel,
      .pack_tile = pack_tile,
      .gemm = gemm,
      .norm = norm,
      .rope = rope,
      .activate = activate,
      .add = add,
      .convert = convert,
      .attention_tile_rows = kTiles * kMr,
      .attention_scratch = attention_scratch,
      .attention_tiles = attention_tiles,
      .attention_rows = attention_rows,
      .probe_f32_operations = 2.0 * kLanes * kChains,
      .probe_multiply_add = probe_multiply_add,
      .probe_int8_operations = 2.0 * 64 * kChains,
      .probe_int8 = probe_int8,
      .probe_read = probe_read,
  };
  return kTable;
}

}  // namespace nibble::cpu
