// Elements of number formats as sets of representable values, for studies of their error.
#pragma once

#include <string>
#include <vector>

#include "formats/codebook.h"
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

// Integers with a zero point: the levels (k - zero) for k = 0 ... 2^bits - 1, scaled so that the
// largest magnitude is 1. 2 ... 8 bits, zero one of the k.
Grid integer_grid_around(int bits, int zero);

// 1 sign, `exponent` and `mantissa` bits, subnormals included; infinities and NaNs are no levels.
// "e4m3" is all-finite, as papers and simulators have it; other kinds are spelled out.
Grid float_grid(int exponent, int mantissa, FloatKind kind = FloatKind::kAllFinite);

// The numbers of a table of formats/codebook.h that is scaled to 1.
Grid codebook_grid(Codebook codebook);

// The elements of `bits` bits that studies compare, integers first, then floats by exponent bits.
// 8, 6 or 4.
std::vector<Grid> grids_of_width(int bits);

}  // namespace nibble
