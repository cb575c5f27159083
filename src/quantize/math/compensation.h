// What rounding left, made up for by a product of low rank: the one with the least error of the
// output, which is a truncated singular value decomposition in whitened coordinates (EoRA, arXiv
// 2410.21271; ASER, arXiv 2411.07762).
#pragma once

#include <cstdint>

#include "formats/codec.h"
#include "formats/format.h"
#include "quantize/math/gptq.h"

namespace nibble {

// t with t U = row, in place; U is the upper triangle [count, count] of a matrix whose rows are
// `stride` apart.
void solve_upper(const float* upper, std::int64_t count, std::int64_t stride, float* row);

// `base` plus the product of the format's rank that brings it nearest to w [rows, cols]: by tr(E M
// E^T), M^-1 = U^T U with the factor in the order of the columns, in the host's memory; or by sum_j
// second_moment_j E_j^2 without a factor (1 each when that is empty).
QuantTensor compensated(const FormatPtr& format, const QuantTensor& base, const float* w,
                        const InverseFactor* factor, std::span<const float> second_moment,
                        const Codec& codec);

}  // namespace nibble
