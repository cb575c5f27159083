// Integers of several widths in one matrix, as ExLlamaV2's EXL2 has them: columns are put into an
// order of their own and cut into groups, each with a number of bits; every row of a group has a
// scale of 4 bits under one F16 for the group.
// Source: ExLlamaV2, conversion/adaptivegptq.py and cuda/quant/qdq_util.cuh.
//
// Planes, for G groups of `cols` columns in all, place p being the p-th column in that order:
//
//   codes      I32 [rows, words]          the runs one after the other, each a little-endian bit
//                                         stream that begins at a word
//   scales     U8  [rows, ceil(G / 2)]    codes of 4 bits, the even group in the lower half
//   scale_max  F16 [G]
//   places     I32 [cols]                 the place of each column
//
// and the weight of a code q of b bits in group g
//
//   w = (q - 2^(b - 1)) * f16((scale + 1)^2 * f16(scale_max_g / 256))
//
// where f16() rounds to nearest even, as the kernels of that program do; the product is exact here
// (there it is rounded to F16 again).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "formats/format.h"

namespace nibble {

inline constexpr std::int64_t kMixedMaxRuns = 16;

// A run of a matrix with so many columns.
struct MixedRun {
  int bits = 4;
  std::int64_t group = 0;        // columns of each, but perhaps the last of the matrix
  std::int64_t first_group = 0;  // of its groups
  std::int64_t groups = 0;
  std::int64_t begin = 0, end = 0;  // places
  std::int64_t word = 0;            // where its codes begin in a row
};

// kUnsupported unless there are 1 to 16 runs of 2, 3, 4, 5, 6 or 8 bits in groups that fill words,
// the last of them, and it alone, open.
FormatPtr make_mixed_format(const WeightDescriptor& descriptor);

// The runs of "mixed_6g32x2_4g128"; none when the text is no such name.
std::optional<std::vector<ColumnRun>> parse_mixed_name(std::string_view text);

// The runs of a matrix in a mixed format that has `cols` columns; empty ones are left out.
std::vector<MixedRun> mixed_runs(const Format& format, std::int64_t cols);

// 32-bit words of the codes of a row.
std::int64_t mixed_words(const std::vector<MixedRun>& runs);
// Groups of a row.
std::int64_t mixed_groups(const std::vector<MixedRun>& runs);

// kCorrupt, naming `what`, unless the places of a tensor are those of each column once, and scales
// are finite. Decoding relies on it.
void check_mixed_planes(const QuantTensor& tensor, const std::string& what);

}  // namespace nibble
