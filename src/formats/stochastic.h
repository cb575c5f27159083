// Stochastic rounding: of the two neighbours of x the nearer one with the greater probability, so
// that the mean of many roundings is x (Gupta et al., arXiv 1502.02551). Scalar, like all of
// formats/. Values beyond the last code saturate.
#pragma once

#include <cstdint>

#include "formats/code_table.h"

namespace nibble {

// A number of [0, 1) that depends on both arguments only.
double uniform_draw(std::uint64_t seed, std::uint64_t index);

// The code of a neighbour of x, which is no NaN; `draw` of [0, 1).
std::uint8_t stochastic_code(const TableView& table, float x, double draw);

// As SpanKernels::affine_codes and table_codes. Element i of the run draws number `index` + i.
void stochastic_affine_codes(int bits, const float* scales, const int* zeros, const float* w,
                             std::int64_t groups, std::int64_t length, std::uint64_t seed,
                             std::int64_t index, std::uint8_t* codes);
void stochastic_table_codes(const TableView& table, const float* scales, const float* w,
                            std::int64_t groups, std::int64_t length, std::uint64_t seed,
                            std::int64_t index, std::uint8_t* codes);

}  // namespace nibble
