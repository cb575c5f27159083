// Decoders of the types whose codes are indices into grids (block_grids.h). Internal to formats/.
#pragma once

#include <cstdint>

namespace nibble {

void decode_iq1_s(const std::uint8_t* block, float* out);
void decode_iq1_m(const std::uint8_t* block, float* out);
void decode_iq2_xxs(const std::uint8_t* block, float* out);
void decode_iq2_xs(const std::uint8_t* block, float* out);
void decode_iq2_s(const std::uint8_t* block, float* out);
void decode_iq3_xxs(const std::uint8_t* block, float* out);
void decode_iq3_s(const std::uint8_t* block, float* out);

}  // namespace nibble
