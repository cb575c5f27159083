// The interface of the kernels that multiply byte codes of weights with activations rounded to
// bytes. What kernel_table.h says about what may be included here holds too.
//
// Activations are rounded by row and block of kInt8Block columns: x = scale * q + offset with q in
// [0, 255], over the range of the block; or in [-128, 127] and the offset to match, where a level
// multiplies signed bytes only. Weights are repacked at load; see panel_weight.h.
#pragma once

#include "backends/cpu/kernel_table.h"

namespace nibble::cpu {

inline constexpr std::int64_t kPanelRows = 32;
inline constexpr std::int64_t kUnitBytes = 4 * kPanelRows;  // of a panel
inline constexpr std::int64_t kInt8Block = 32;

// Weights in panels, which lie one after the other. Unit u of a panel holds 4 kPanelRows bytes:
//
//   nibbles  columns 8u ... 8u + 7: byte 4r + j holds the code of row r, column 8u + j in its low
//            half and of column 8u + 4 + j in its high half; less the zero point it is the weight
//   bytes    columns 4u ... 4u + 3: byte 4r + j is the signed weight of row r, column 4u + j
//
// w = scale * (signed value - zero), scales and zeros [panel][group][kPanelRows].
struct PanelView {
  std::int64_t rows = 0;  // the last panel is padded with zero weights
  std::int64_t cols = 0;  // a multiple of kInt8Block
  bool nibbles = false;
  const unsigned char* codes = nullptr;
  std::int64_t panel_bytes = 0;
  const unsigned char* scales = nullptr;
  Storage scale_type = Storage::kF32;
  const signed char* zeros = nullptr;  // bytes only: may be null, which means 0
  std::int64_t group = 0;              // a multiple of kInt8Block
  std::int64_t groups = 0;
};

// Rounded activations: row i is q + i * stride, its blocks' numbers are at i * blocks in the
// others.
struct Int8Rows {
  unsigned char* q = nullptr;
  float* scale = nullptr;
  float* offset = nullptr;
  float* sum = nullptr;  // of the block's rounded values: scale * (sum of q) + kInt8Block * offset
  std::int64_t stride = 0;
  std::int64_t blocks = 0;
};

// Where the results of all panels go.
struct PanelOutput {
  const float* bias = nullptr;  // [rows] or null
  float* y = nullptr;           // y[0, 0]
  std::int64_t y_stride = 0;
  bool add = false;
};

// y[i, n] = x[i] . w[n] (+ y) (+ bias[n]) for the rows of one panel.
struct Int8Task {
  PanelView w;
  std::int64_t panel = 0;
  Int8Rows x;
  std::int64_t m = 0;
  PanelOutput out;
  unsigned char* scratch = nullptr;  // int8_scratch_bytes(cols), aligned to 64
};

// y[i, n] = scale[i] * (q[i] . w[n]) (+ y) (+ bias[n]) for the rows of one panel, q of a format of
// activations: whole rows of one scale, q + 128 (or q, where a level multiplies signed bytes) a
// byte.
struct TokenTask {
  PanelView w;
  std::int64_t panel = 0;
  const unsigned char* q = nullptr;  // rows q_stride apart, readable up to token_rows(m) of them
  std::int64_t q_stride = 0;
  const float* scale = nullptr;   // [m]
  const float* q_sums = nullptr;  // of q by group, [m, groups]: when w has zeros of bytes, or null
  std::int64_t m = 0;
  PanelOutput out;
  unsigned char* scratch = nullptr;  // token_scratch_bytes(), aligned to 64
};

struct TokenKernels {
  bool bytes;                // whether panels of bytes are supported beside nibbles
  std::int64_t group_step;   // of what the groups of weights must be a multiple
  int raised;                // what the bytes of q stand above their values: 128 or 0
  std::int64_t row_scratch;  // bytes of TokenTask::scratch for every row beside the panel's
  // One row of a symmetric format by token, q at most `most`: the scale is returned, NaN when the
  // row holds a NaN or an infinity.
  float (*quantize)(const float* x, std::int64_t cols, float most, unsigned char* q);
  void (*run)(const TokenTask& task);
  ArithmeticProbe probe;
};

// Super-blocks of ggml; see block_panel_kernels.h.
struct SignedRows;
struct BlockPanelTask;
struct BlockPanelKernels {
  bool all_types;  // false: none whose levels need all eight bits
  // Rounds one row of `cols` floats into row i. A block that holds a NaN or an infinity gets the
  // scale NaN.
  void (*quantize)(const float* x, std::int64_t i, const SignedRows& rows);
  void (*run)(const BlockPanelTask& task);
};

struct Int8Kernels {
  TokenKernels token;
  std::int64_t direct_rows;  // up to so many activation rows direct() is faster (measured)
  // Rounds one row of `cols` floats into row i. A block that holds a NaN or an infinity gets the
  // scale NaN.
  void (*quantize)(const float* x, std::int64_t i, const Int8Rows& rows);
  void (*direct)(const Int8Task& task);   // weights straight from the panels
  void (*blocked)(const Int8Task& task);  // weights unpacked into scratch first
  BlockPanelKernels block_panels;
  // Keys and values of codes; empty where nothing beats the level's own rows.
  AttentionRows attention_rows;
};

inline const TokenKernels& token_kernels(const TokenKernels& kernels) { return kernels; }
inline const TokenKernels& token_kernels(const Int8Kernels& kernels) { return kernels.token; }

// Columns that blocked() unpacks at once. It needs scratch for the bytes of kPanelRows rows and
// three floats a row and block of them; direct() for a float a row and block of all columns.
inline constexpr std::int64_t kInt8Depth = 512;
constexpr std::int64_t int8_scratch_bytes(std::int64_t cols) {
  const std::int64_t blocked =
      kPanelRows * kInt8Depth + 3 * 4 * kPanelRows * (kInt8Depth / kInt8Block);
  const std::int64_t direct = 4 * kPanelRows * (cols / kInt8Block);
  return blocked < direct ? direct : blocked;
}

// Columns of a group whose sum fits 32 bits for certain.
inline constexpr std::int64_t kTokenGroup = 65536;
// What a panel is unpacked to.
constexpr std::int64_t token_panel_bytes(const PanelView& w) {
  return 4 * kPanelRows * w.groups + (w.nibbles ? kPanelRows * w.cols : 0);
}
// Rows with those that only fill up a tile.
constexpr std::int64_t token_rows(std::int64_t m) { return (m + 31) / 32 * 32; }
constexpr std::int64_t token_scratch_bytes(const TokenKernels& kernels, const PanelView& w,
                                           std::int64_t m) {
  return token_panel_bytes(w) + kernels.row_scratch * token_rows(m);
}

const Int8Kernels& avx2_int8_kernels();
const Int8Kernels& avx512_vnni_kernels();
const TokenKernels& amx_int8_kernels();
const Int8Kernels& neon_dotprod_kernels();
const Int8Kernels& neon_i8mm_kernels();

}  // namespace nibble::cpu
