// From the blocks of ggml to numbers: the definition that encoders and kernels are tested against.
#pragma once

#include <cstdint>

#include "formats/block_type.h"

namespace nibble {

// Decodes one block: out[0, layout_of(type).elements) = w. Any bytes are a block; scales that are
// NaN or infinite give such numbers. Products are taken in float32 in ggml's order, so that results
// have the bits of its reference decoders.
using BlockDecoder = void (*)(const std::uint8_t* block, float* out);
BlockDecoder block_decoder(BlockType type);

// What the 16 codes of IQ4_NL and IQ4_XS stand for, rising.
inline constexpr std::int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

// The scale of MXFP4 for an E8M0 byte, halved, and that of NVFP4 for an unsigned E4M3 byte (127 is
// 0), halved: the codes of both are doubled to be integers.
float half_scale_of_e8m0(std::uint8_t code);
float half_scale_of_ue4m3(std::uint8_t code);
// Doubled values of the codes of E2M1.
inline constexpr std::int8_t kDoubledE2m1[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                                 0, -1, -2, -3, -4, -6, -8, -12};

// Scale and minimum of sub-block j of the 12 bytes of Q4_K and Q5_K, 6 bits each.
inline int scale_of_k4(const std::uint8_t* scales, int j) {
  return j < 4 ? scales[j] & 63 : (scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4;
}
inline int minimum_of_k4(const std::uint8_t* scales, int j) {
  return j < 4 ? scales[j + 4] & 63 : scales[j + 4] >> 4 | (scales[j] >> 6) << 4;
}
// Scale of sub-block j of the 12 bytes of Q3_K, 6 bits, less 32.
inline int scale_of_k3(const std::uint8_t* scales, int j) {
  const int low = j < 8 ? scales[j] & 15 : scales[j - 8] >> 4;
  return (low | ((scales[8 + j % 4] >> 2 * (j / 4)) & 3) << 4) - 32;
}
// Scale of sub-block j of IQ4_XS, 6 bits, less 32.
inline int scale_of_iq4_xs(std::uint16_t high, const std::uint8_t* low, int j) {
  return ((low[j / 2] >> 4 * (j % 2) & 15) | (high >> 2 * j & 3) << 4) - 32;
}

}  // namespace nibble
