// Blocks as the formats of the grammar that hold the same values: for kernels that know those, and
// for other files.
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

struct BlockForm {
  QuantTensor weight;      // in blocks
  float tensor_scale = 1;  // that all of it stands under (NVFP4)
};

// The way back, for more than those formats: integers of any width whose runs of 32 share a scale
// that a half holds, in the smallest of Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 with every value; MXFP4 and
// NVFP4; blocks themselves. Nothing where no type has every value.
std::optional<BlockForm> block_form_of(const QuantTensor& weight);

}  // namespace nibble
