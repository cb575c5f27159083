// Encoders of super-blocks: 256 elements whose scales are quantized once more. Internal to
// formats/.
#pragma once

#include <cstdint>

namespace nibble {

void encode_q2_k(const float* w, const float* importance, std::uint8_t* block);
void encode_q3_k(const float* w, const float* importance, std::uint8_t* block);
void encode_q4_k(const float* w, const float* importance, std::uint8_t* block);
void encode_q5_k(const float* w, const float* importance, std::uint8_t* block);
void encode_q6_k(const float* w, const float* importance, std::uint8_t* block);
void encode_iq4_xs(const float* w, const float* importance, std::uint8_t* block);

}  // namespace nibble
