// The byte kernels of machines with AVX-512 VNNI. See kernel_table.h for what must not be included
// here.
#include <immintrin.h>

#include "backends/cpu/block_panel_kernels.h"

namespace nibble::cpu {
namespace {

// Each file uses the ones before it.
// clang-format off
#include "backends/cpu/kernels/vec_avx512.inl.h"
#include "backends/cpu/kernels/bytes_avx512.inl.h"
#include "backends/cpu/kernels/int8_level.inl.h"
#include "backends/cpu/kernels/math.inl.h"
#include "backends/cpu/kernels/kv_rows.inl.h"
#include "backends/cpu/kernels/attention_softmax.inl.h"
#include "backends/cpu/kernels/attention_parts.inl.h"
#include "backends/cpu/kernels/attention_blocks.inl.h"
#include "backends/cpu/kernels/attention_dots.inl.h"
#include "backends/cpu/kernels/code_panels.inl.h"
#include "backends/cpu/kernels/attention_codes.inl.h"
// clang-format on

}  // namespace

const Int8Kernels& avx512_vnni_kernels() {
  static constexpr Int8Kernels kTable =
      int8_table({attention_codes_fit, attention_codes_scratch, attention_codes});
  return kTable;
}

}  // namespace nibble::cpu
