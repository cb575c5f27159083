// The interface of the kernels that multiply bf16 with bf16 into float32 sums. What kernel_table.h
// says about what may be included here holds too.
//
// Activations are rounded to bf16, to nearest even. The products work on pairs of neighbouring
// columns: 32 bits that hold column 2p in the low half and column 2p + 1 in the high half.
#pragma once

#include "backends/cpu/int8_kernels.h"
#include "backends/cpu/kernel_table.h"

namespace nibble::cpu {

inline constexpr std::int64_t kBf16PanelRows = 32;  // weight rows of a panel
inline constexpr std::int64_t kBf16Step = 32;       // columns that a kernel takes at once
inline constexpr std::int64_t kBf16TileRows = 32;   // gemm reads whole tiles of activation rows

// y[i, n] = x[i] . w[n] (+ y) (+ bias[n]) for weight rows [row_begin, row_end), which are read in
// place.
struct Bf16DirectTask {
  const unsigned char* w = nullptr;  // [rows, cols] of bf16, may be unaligned
  std::int64_t row_bytes = 0;
  std::int64_t cols = 0;
  std::int64_t row_begin = 0;
  std::int64_t row_end = 0;
  const std::uint16_t* x = nullptr;  // [m, cols], zeros up to the next multiple of kBf16Step
  std::int64_t x_stride = 0;
  std::int64_t m = 0;
  const float* bias = nullptr;  // [rows] or null
  float* y = nullptr;
  std::int64_t y_stride = 0;
  bool add = false;
};

// The same for weights in blocks. sums[i, j] = the sum of run j of row i of x, runs of
// minimum_run(w.block) columns; nothing where that is 0.
struct Bf16BlocksTask {
  WeightView w;
  std::int64_t row_begin = 0;
  std::int64_t row_end = 0;
  const std::uint16_t* x = nullptr;
  std::int64_t x_stride = 0;
  const float* sums = nullptr;
  std::int64_t sums_stride = 0;
  std::int64_t m = 0;
  const float* bias = nullptr;  // [rows] or null
  float* y = nullptr;
  std::int64_t y_stride = 0;
  bool add = false;
};

// c[m, n] (+)= a * b (+ bias): `b` is panels of kBf16PanelRows weight rows, each
// [k / 2][kBf16PanelRows] pairs. Padding rows of b are computed and not stored.
struct Bf16GemmTask {
  const std::uint16_t* a = nullptr;  // [m rounded up to kBf16TileRows, k], aligned to 4
  std::int64_t a_stride = 0;
  const std::uint32_t* b = nullptr;
  std::int64_t b_panel_stride = 0;  // in pairs
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;           // a multiple of kBf16Step
  const float* bias = nullptr;  // [n] or null
  float* c = nullptr;
  std::int64_t c_stride = 0;
  bool add = false;
  ReadAhead ahead;
};

struct Bf16Kernels {
  std::int64_t direct_rows;      // up to so many activation rows direct() is faster (measured)
  std::int64_t unpack_min_rows;  // from so many gemm on unpacked integers beats byte products
  std::int64_t depth;            // columns of a block (measured)
  // Rounds `count` floats; zeros follow up to the next multiple of kBf16Step.
  void (*narrow)(const float* x, std::int64_t count, std::uint16_t* out);
  void (*direct)(const Bf16DirectTask& task);
  // Blocks of codes of up to 6 bits, of which only x is rounded to bf16; null where there are none.
  void (*blocks)(const Bf16BlocksTask& task);
  std::int64_t (*minimum_run)(BlockStorage type);
  // [rows <= kBf16PanelRows, count] of bf16, rows `row_bytes` apart -> panel [count rounded up to
  // kBf16Step / 2][kBf16PanelRows]; what is missing becomes zeros.
  void (*pack)(const unsigned char* w, std::int64_t row_bytes, std::int64_t rows,
               std::int64_t count, std::uint32_t* panel);
  // Columns [begin, begin + count) of a panel of integers to a panel of bf16; begin and count are
  // multiples of kInt8Block. Null where byte products are faster at any number of rows.
  void (*unpack)(const PanelView& w, std::int64_t panel, std::int64_t begin, std::int64_t count,
                 std::uint32_t* out);
  void (*gemm)(const Bf16GemmTask& task);
  // Keys and values of bf16 or fewer bits; empty where the level's own tiles are faster.
  AttentionTiles attention_tiles;
  AttentionRows attention_rows;  // keys and values of bf16; empty likewise
  ArithmeticProbe probe;
};

const Bf16Kernels& avx512_bf16_kernels();
const Bf16Kernels& amx_kernels();

}  // namespace nibble::cpu
