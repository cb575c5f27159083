// What ggml's CPU kernels round the rows of x to before they multiply them with blocks.
#pragma once

#include "formats/activation_format.h"
#include "formats/format.h"

namespace nibble {

// What `weight` asks for: its type's other side in ggml (vec_dot_type; MIT), as a format:
//
//   blocks of 256           Q8_K  int8_g256
//   q4_1, q5_1, q8_1        Q8_1  int8_g32_sf16; sums, which q4_1 and q5_1 multiply with their
//                                 minimums, ggml rounds to F16 besides
//   all other blocks        Q8_0  int8_g32_sf16
//
// Null for plain floats (with weights of F16 or BF16 ggml rounds x to that type, which is not done
// here). kUnsupported for other formats, which ggml does not have.
ActivationFormatPtr ggml_input(const Format& weight);

}  // namespace nibble
