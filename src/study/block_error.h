// The error of elements under one exact scale a block, whatever a format would store it in.
#pragma once

#include <cstdint>
#include <span>

#include "study/bits.h"
#include "study/grid.h"

namespace nibble {

// Mean squared error of rounding each run of `block` values (the last may be shorter) to the levels
// of the grid times a scale of its own: its largest magnitude, or the best of that and
// (1.5 - k / clip_steps) times that, k = 0 ... clip_steps - 1 (floats may gain by a scale that
// leaves their top codes unused).
double block_error(const Grid& grid, std::span<const float> values, std::int64_t block,
                   int clip_steps = 0);

// The same for integers of `bits` bits with a zero point: the step that just covers the block's
// minimum, maximum and 0, or the best of that and (1.5 - k / clip_steps) times that.
double zero_point_block_error(int bits, std::span<const float> values, std::int64_t block,
                              int clip_steps = 0);

// Elements of 2 to 8 bits by blocks of 16 to 1024 values; range "block32", and "block32+clip" where
// scales are searched. At most 2^20 of the values are used, 2^18 for searches. bits_per_weight
// counts 16 bits a scale, and the bits of a code for a zero point.
std::vector<BitsRow> study_blocks(const BitsSource& source, std::span<const float> values);

}  // namespace nibble
