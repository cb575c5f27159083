// Blocks as the formats of the grammar that hold the same values: for kernels that know those.
#pragma once

#include <optional>

#include "formats/format.h"

namespace nibble {

// The other format with every value of such blocks, in planes of its own; null for other types:
//
//   q4_0, q5_0, q8_0   int4_g32_sym_full, int5_g32_sym_full, int8_g32_sym_strict
//   mxfp4_gguf         fp4_e2m1_g32_se8m0
//   nvfp4_gguf         fp4_e2m1_g16_se4m3, under a scale of the tensor
FormatPtr plain_format_of_blocks(const Format& blocks);

// Blocks in that format. Nothing where there is none, and for scales that mean something else there
// (NaN).
std::optional<QuantTensor> plain_form_of_blocks(const QuantTensor& blocks, float tensor_scale = 1,
                                                const Codec& codec = {});

}  // namespace nibble
