// The byte kernels and their table. Included inside an anonymous namespace of an ISA unit, after
// the level's vectors of floats and of bytes.

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/floats.inl.h"
#include "backends/cpu/kernels/tile_output.inl.h"
#include "backends/cpu/kernels/panel_output.inl.h"
#include "backends/cpu/kernels/byte_rows.inl.h"
#include "backends/cpu/kernels/int8_rows.inl.h"
#include "backends/cpu/kernels/int8_panels.inl.h"
#include "backends/cpu/kernels/int8_direct.inl.h"
#include "backends/cpu/kernels/ahead.inl.h"
#include "backends/cpu/kernels/int8_blocked.inl.h"
#include "backends/cpu/kernels/int8_token.inl.h"
#include "backends/cpu/kernels/block_panels.inl.h"
#include "backends/cpu/kernels/int8_probe.inl.h"
// clang-format on

constexpr Int8Kernels int8_table(const AttentionRows& attention_rows = {}) {
  return {
      .token = {.bytes = kWholeBytes,
                .group_step = 1,
                .raised = kRaised,
                .row_scratch = 0,
                .quantize = token_quantize,
                .run = int8_token,
                .probe = {2.0 * kVecBytes * kIntChains, int8_probe}},
      .direct_rows = kDirectRows,
      .quantize = int8_quantize,
      .direct = int8_direct,
      .blocked = int8_blocked,
      .block_panels = {kUnsignedBytes, block_panel_quantize, block_panel_run},
      .attention_rows = attention_rows,
  };
}
