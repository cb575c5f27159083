// The families of formats that make_format() chooses from. Internal to formats/.
#pragma once

#include <optional>

#include "formats/format.h"

namespace nibble {

// Plain F16, BF16 or F32 in one plane, "weight".
FormatPtr make_float_format(const WeightDescriptor& descriptor);

// Affine integers (affine.h).
FormatPtr make_affine_format(const WeightDescriptor& descriptor);

// Codes into a table of values, times a scale (table_scales.h). kUnsupported for schemes that make
// no sense.
FormatPtr make_table_format(const WeightDescriptor& descriptor);

// Integers beside columns that stay in 16 bits (split_format.h). kUnsupported as above.
FormatPtr make_split_format(const WeightDescriptor& descriptor);

// Codes into tables that are fitted to the matrix (fitted_format.cc). kUnsupported as above.
FormatPtr make_fitted_format(const WeightDescriptor& descriptor);

// What they share. "int4", "fp4_e2m1", "nf4"; of no plain float:
std::string element_name(const Element& element);
// "f32", "f16", "bf16", and the last two as "fp16_e5m10" and "fp16_e8m7".
std::optional<DType> plain_float_named(std::string_view text);
// How many of the words of a format's name are its element, which is set; 0: none.
std::size_t take_element(const std::vector<std::string_view>& words, Element& element);
// "_sf16", "_se8m0_ceil", ...; "" for scales in float32 by the largest magnitude:
std::string scale_suffix(const Scheme& scheme);
// "_tensor", "_channel", "_g<size>" or "_b<rows>x<columns>":
std::string granularity_suffix(const Scheme& scheme);
// Empty, or why a [rows, cols] matrix cannot be cut into the groups of the scheme.
std::string why_no_groups(const Scheme& scheme, std::int64_t rows, std::int64_t cols);
// Shape of the planes that hold one value a group.
Shape group_shape(const Scheme& scheme, std::int64_t rows, std::int64_t cols);
// Columns of a group.
std::int64_t group_length(const Scheme& scheme, std::int64_t cols);
// 32-bit words of a row of codes.
std::int64_t words_per_row(int bits, std::int64_t cols);
// All columns, the largest `importance` first, or, where that is empty, the largest sum of the
// squares of their weights; the lower index among equals.
std::vector<std::int32_t> columns_by_weight(const float* w, std::int64_t rows, std::int64_t cols,
                                            std::span<const float> importance);
// kUsage, with the reason, unless a [rows, cols] matrix can be stored in the format.
void require_fits(const Format& format, std::int64_t rows, std::int64_t cols);
// kCorrupt, naming row and column, unless all of w is finite.
void require_finite(const std::string& format, const float* w, std::int64_t rows,
                    std::int64_t cols);

}  // namespace nibble
