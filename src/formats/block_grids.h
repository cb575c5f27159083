// The grids of the IQ types: constants of the format, in which codes are indices. Internal to
// formats/. Element i of an entry stands in bits 2 i (8 elements) or 4 i (4 elements):
//   iq2_xxs, iq2_xs, iq2_s   codes of the magnitudes 8, 25, 43
//   iq3_xxs, iq3_s           codes of the magnitudes 4, 12, ... 52, 62 and 1, 3, ... 15
//   iq1_s (iq1_m too)        codes of -1, 0, 1
#pragma once

#include <cstdint>

namespace nibble {

extern const std::uint16_t kGridIq2Xxs[256];
extern const std::uint16_t kGridIq2Xs[512];
extern const std::uint16_t kGridIq2S[1024];
extern const std::uint16_t kGridIq3Xxs[256];
extern const std::uint16_t kGridIq3S[512];
extern const std::uint16_t kGridIq1S[2048];

}  // namespace nibble
