// The kernels that every level has, and their table. Included inside an anonymous namespace of an
// ISA unit, after the level's vectors and codes.

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/floats.inl.h"
#include "backends/cpu/kernels/dot_output.inl.h"
#include "backends/cpu/kernels/compiler_vectors.inl.h"
#include "backends/cpu/kernels/block_layouts.inl.h"
#include "backends/cpu/kernels/blocks.inl.h"
#include "backends/cpu/kernels/weights.inl.h"
#include "backends/cpu/kernels/gemv.inl.h"
#include "backends/cpu/kernels/tile_output.inl.h"
#include "backends/cpu/kernels/panel_output.inl.h"
#if defined(__AVX512F__)
#include "backends/cpu/kernels/table_halves_avx512.inl.h"
#endif
#include "backends/cpu/kernels/table_panels.inl.h"
#include "backends/cpu/kernels/gemm.inl.h"
#include "backends/cpu/kernels/math.inl.h"
#include "backends/cpu/kernels/rows.inl.h"
#if defined(__AVX512F__)
#include "backends/cpu/kernels/limits_avx512.inl.h"
#endif
#include "backends/cpu/kernels/spans.inl.h"
#if defined(__AVX512F__)
#include "backends/cpu/kernels/slots_avx512.inl.h"
#endif
#include "backends/cpu/kernels/span_sums.inl.h"
#include "backends/cpu/kernels/span_bits.inl.h"
#include "backends/cpu/kernels/hadamard.inl.h"
#include "backends/cpu/kernels/kv_rows.inl.h"
#include "backends/cpu/kernels/kv_encode.inl.h"
#include "backends/cpu/kernels/attention_softmax.inl.h"
#include "backends/cpu/kernels/attention_blocks.inl.h"
#include "backends/cpu/kernels/attention_tiles.inl.h"
#include "backends/cpu/kernels/attention_parts.inl.h"
#include "backends/cpu/kernels/attention_scores.inl.h"
#include "backends/cpu/kernels/attention_panels.inl.h"
#include "backends/cpu/kernels/attention_values.inl.h"
#include "backends/cpu/kernels/attention_rows.inl.h"
#include "backends/cpu/kernels/probe.inl.h"
// clang-format on

// What not every level has (rope) is null.
constexpr KernelTable level_table() {
  KernelTable table{};
  table.lanes = kLanes;
  table.mr = kMr;
  table.nr = kNr;
  table.gemv_rows = 8;
  table.attention_row_queries = 1;
  table.decode_row = decode_row;
  table.gemv = gemv;
  table.table_panels = kLanes >= 8 ? table_panels : nullptr;
  table.pack_panel = pack_panel;
  table.pack_tile = pack_tile;
  table.gemm = gemm;
  table.norm = norm;
  table.activate = activate;
  table.add = add;
  table.kv_encode = kv_encode;
  table.hadamard = hadamard;
  table.attention_tiles = {kTileQueryRows, attention_scratch, attention_tiles};
  table.attention_part_keys = kPartKeys;
  table.attention_part_floats = attention_part_floats;
  table.attention_rows = {attention_rows_fit, attention_row_scratch, attention_rows};
  table.attention_merge = attention_merge;
  table.spans = kSpans;
  table.probe = {2.0 * kLanes * kChains, probe_multiply_add};
  table.probe_read = probe_read;
  return table;
}
