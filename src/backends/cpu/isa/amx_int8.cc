// The byte kernels of machines with AMX: for activations that a format rounds, whole rows of one
// scale. (Those that are rounded by block of 32 columns inside a 16-bit format would fill half a
// tile of bytes a scale, and gain nothing over tiles of bf16.) See kernel_table.h for what must not
// be included here.
#include <immintrin.h>

#include "backends/cpu/int8_kernels.h"

namespace nibble::cpu {
namespace {

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/vec_avx512.inl.h"
#include "backends/cpu/kernels/bytes_avx512.inl.h"
#include "backends/cpu/kernels/floats.inl.h"
#include "backends/cpu/kernels/tile_output.inl.h"
#include "backends/cpu/kernels/panel_output.inl.h"
#include "backends/cpu/kernels/byte_rows.inl.h"
#include "backends/cpu/kernels/int8_panels.inl.h"
#include "backends/cpu/kernels/int8_token.inl.h"
#include "backends/cpu/kernels/amx_tiles.inl.h"
#include "backends/cpu/kernels/amx_token.inl.h"
#define AMX_PRODUCT _tile_dpbusd
#include "backends/cpu/kernels/amx_probe.inl.h"
// clang-format on

}  // namespace

const TokenKernels& amx_int8_kernels() {
  static constexpr TokenKernels kTable = {
      .bytes = kWholeBytes,
      .group_step = kAmxByteStep,
      .raised = kRaised,
      .row_scratch = 2 * 4 * kPanelRows,
      .quantize = token_quantize,
      .run = amx_token,
      .probe = {amx_probe_operations(1), amx_probe},
  };
  return kTable;
}

}  // namespace nibble::cpu
