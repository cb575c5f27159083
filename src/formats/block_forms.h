// Blocks and the formats of the grammar that hold the same values: for kernels that know those, and
// for conventions that store them.
#pragma once

#include <optional>

#include "formats/format.h"

namespace nibble {

// Blocks as another format with every value kept, in planes of their own:
//
//   q4_0, q5_0, q8_0   int4_g32_sym_full, int5_g32_sym_full, int8_g32_sym_strict
//   mxfp4_gguf         fp4_e2m1_g32_se8m0
//   nvfp4_gguf         fp4_e2m1_g16_se4m3, under `tensor_scale`
//
// Nothing for other types, and for scales that mean something else there (NaN).
std::optional<QuantTensor> plain_form_of_blocks(const QuantTensor& blocks, float tensor_scale = 1);

// The other way: symmetric integers of 4, 5 and 8 bits with scales in F16 for multiples of 32
// columns, and microscaled FP4. Nothing for what no block can hold with every value kept.
std::optional<QuantTensor> blocks_of_plain_form(const QuantTensor& plain);

}  // namespace nibble
