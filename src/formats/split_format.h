// Integers beside columns that stay in 16 bits, the static form of LLM.int8()'s decomposition
// (arXiv 2208.07339): the planes of the integers (affine.h), in which those columns are zeros, and
//
//   outlier_columns  I32 [1, outliers]                 ascending
//   outliers         F16 or BF16 [rows, outliers]      the columns themselves; BF16 when the scales
//                                                      are
//
// Which columns: those of the largest E[x_j^2] of their inputs (Codec::importance), or, where that
// is not known, of the largest sum of squares of their weights; the lower index among equals.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/format.h"

namespace nibble {

// Of a matrix of elements kIntSplit; kUsage for others, kCorrupt for columns outside the matrix or
// out of order.
std::vector<std::int32_t> outlier_columns(const QuantTensor& tensor);

}  // namespace nibble
