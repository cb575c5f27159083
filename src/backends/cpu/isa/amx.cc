// The bf16 kernels of machines with AMX. See kernel_table.h for what must not be included here.
#include <immintrin.h>

#include "backends/cpu/bf16_kernels.h"
#include "backends/cpu/int8_kernels.h"

namespace nibble::cpu {
namespace {

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/vec_avx512.inl.h"
#include "backends/cpu/kernels/bytes_avx512.inl.h"
#include "backends/cpu/kernels/bf16_avx512.inl.h"
#include "backends/cpu/kernels/bf16_level.inl.h"
#include "backends/cpu/kernels/panel_output.inl.h"
#include "backends/cpu/kernels/int8_panels.inl.h"
#include "backends/cpu/kernels/bf16_unpack.inl.h"
#include "backends/cpu/kernels/amx_tiles.inl.h"
#include "backends/cpu/kernels/amx_gemm.inl.h"
#define AMX_PRODUCT _tile_dpbf16ps
#include "backends/cpu/kernels/amx_probe.inl.h"
// clang-format on

}  // namespace

const Bf16Kernels& amx_kernels() {
  static constexpr Bf16Kernels kTable = {
      .direct_rows = 4,
      .unpack_min_rows = 48,
      .depth = 2816,
      .narrow = bf16_narrow,
      .direct = bf16_direct,
      .blocks = nullptr,
      .minimum_run = nullptr,
      .pack = bf16_pack,
      .unpack = bf16_unpack,
      .gemm = amx_gemm,
      .attention_tiles = {},
      .attention_rows = {},
      .probe = {amx_probe_operations(2), amx_probe},
  };
  return kTable;
}

}  // namespace nibble::cpu
