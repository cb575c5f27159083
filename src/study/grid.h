// Elements of number formats as sets of representable values, for studies of their error.
#pragma once

#include <string>
#include <vector>

#include "formats/float_bits.h"

namespace nibble {

// Sorted levels, scaled so that the largest is 1. A scale (or a real-valued bias of a float, which
// is the same thing) stretches them to any range.
struct Grid {
  std::string name;  // "int8", "int8_full", "e4m3", "e4m3fn", "nf4", ...
  int bits = 0;
  std::vector<double> levels;
};

// Symmetric integers: -(2^(b-1) - 1) ... 2^(b-1) - 1, and -2^(b-1) too when `full`. 2 ... 8 bits.
Grid integer_grid(int bits, bool full = false);

// 1 sign, `exponent` and `mantissa` bits, subnormals included. All kinds but kFnuz, whose levels
// are those of kAllFinite.
Grid float_grid(int exponent, int mantissa, FloatKind kind = FloatKind::kAllFinite);

// NormalFloat of QLoRA (Dettmers et al. 2023) by its construction: quantiles of the normal
// distribution, 16 levels from -1 to 1 with 0 among them.
Grid nf4_grid();
// The 4-bit float of bitsandbytes, whose subnormal is 1/192 of the largest.
Grid bnb_fp4_grid();

// The elements of `bits` bits that studies compare, integers first, then floats by exponent bits.
// 8, 6 or 4.
std::vector<Grid> grids_of_width(int bits);

}  // namespace nibble
