// The interface of the kernels that multiply weights of tables (NF4, FP4, MXFP4, NVFP4, FP8) with
// few activation rows in float32. What kernel_table.h says about what may be included here holds
// too.
//
// Weights are repacked at load into panels of kPanelRows rows, codes of 4 or 8 bits as
// int8_kernels.h has nibbles and bytes, without a change of their values; scales are [panel][group]
// [kPanelRows].
//
//   4 bits   w = scale * values[code]
//   8 bits   w = scale * (steps[c >> mantissa] * (c mod 2^mantissa) + values[c >> mantissa]): a
//            small float of a sign and up to 4 bits of exponent
//   halves   8 bits whose sign, exponent and mantissa, `down` bits below those of an F16, are that
//            number times 1 / `unit`. A vector of 16 rows is 32 of those, of columns 0 and 1 in
//            their low bytes, of columns 2 and 3 in their high ones: byte 32 (j mod 2) + 2 r + j /
//            2 holds row r, column j.
#pragma once

#include "backends/cpu/int8_kernels.h"

namespace nibble::cpu {

// How scales are stored: bytes of kE8M0 are exponents above -127, those of kE4M3 (no NaN, not
// negative) are multiples of `factor`.
enum class PanelScale { kF32, kF16, kBF16, kE8M0, kE4M3 };
constexpr std::int64_t panel_scale_bytes(PanelScale type) {
  if (type == PanelScale::kF32) return 4;
  return type == PanelScale::kF16 || type == PanelScale::kBF16 ? 2 : 1;
}

inline constexpr std::int64_t kHalfRows = 16;  // of a vector of halves

struct TablePanelView {
  std::int64_t rows = 0;  // the last panel is padded
  std::int64_t cols = 0;
  int bits = 4;
  bool halves = false;
  int down = 0;                   // of halves: 0 or 1
  float unit = 1;                 // of halves, a power of two
  int mantissa = 0;               // of other 8 bits
  const float* values = nullptr;  // [16], or [32]
  const float* steps = nullptr;   // [32], of 8 bits
  const unsigned char* codes = nullptr;
  std::int64_t panel_bytes = 0;
  const unsigned char* scales = nullptr;
  PanelScale scale_type = PanelScale::kF32;
  float factor = 1;
  std::int64_t group = 0;  // a multiple of 8
  std::int64_t groups = 0;
};

// y[i, n] = x[i] . w[n] (+ y) (+ bias[n]) for the rows of one panel.
struct TablePanelTask {
  TablePanelView w;
  std::int64_t panel = 0;
  const float* x = nullptr;
  std::int64_t x_stride = 0;
  std::int64_t m = 0;
  PanelOutput out;
};

}  // namespace nibble::cpu
