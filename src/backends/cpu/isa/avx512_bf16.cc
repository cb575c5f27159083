// The bf16 kernels of machines with AVX512-BF16. See kernel_table.h for what must not be included
// here.
#include <immintrin.h>

#include "backends/cpu/bf16_kernels.h"

namespace nibble::cpu {
namespace {

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/vec_avx512.inl.h"
#include "backends/cpu/kernels/bf16_avx512.inl.h"
#include "backends/cpu/kernels/bf16_level.inl.h"
#include "backends/cpu/kernels/compiler_vectors.inl.h"
#include "backends/cpu/kernels/block_layouts.inl.h"
#include "backends/cpu/kernels/bf16_block_rows.inl.h"
#include "backends/cpu/kernels/bf16_tile.inl.h"
#include "backends/cpu/kernels/bf16_gemm.inl.h"
#include "backends/cpu/kernels/math.inl.h"
#include "backends/cpu/kernels/kv_rows.inl.h"
#include "backends/cpu/kernels/attention_softmax.inl.h"
#include "backends/cpu/kernels/attention_blocks.inl.h"
#include "backends/cpu/kernels/attention_pairs.inl.h"
#include "backends/cpu/kernels/attention_parts.inl.h"
#include "backends/cpu/kernels/attention_dots.inl.h"
#include "backends/cpu/kernels/attention_halves.inl.h"
#include "backends/cpu/kernels/bf16_probe.inl.h"
// clang-format on

}  // namespace

const Bf16Kernels& avx512_bf16_kernels() {
  static constexpr Bf16Kernels kTable = {
      .direct_rows = 24,
      .unpack_min_rows = 0,
      .depth = 1024,
      .narrow = bf16_narrow,
      .direct = bf16_direct,
      .blocks = bf16_blocks,
      .minimum_run = bf16_minimum_run,
      .pack = bf16_pack,
      .unpack = nullptr,
      .gemm = bf16_gemm,
      .attention_tiles = {kPairQueryRows, attention_pairs_scratch, attention_pairs},
      .attention_rows = {attention_halves_fit, attention_halves_scratch, attention_halves},
      .probe = {4.0 * kPairLanes * kPairChains, bf16_probe},
  };
  return kTable;
}

}  // namespace nibble::cpu
