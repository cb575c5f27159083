// The code of EXL3's trellises: what a state stands for, and where it stands in a tile.
// Source: ExLlamaV3, exllamav3_ext/quant/codebook.cuh and exl3_dq.cuh; QTIP, arXiv 2406.11235.
#pragma once

#include <array>
#include <cstdint>

namespace nibble {

// How a state of 16 bits becomes a value, in the arithmetic of F16.
enum class Exl3Codebook {
  kThreeInstructions,  // x * 89226354 + 64248484, its halves as two F16 that are added
  kMcg,                // x * 0xCBAC1FED, likewise
  kMul1,               // x * 0x83DCD12D, the sum of its four bytes
};
inline constexpr std::uint32_t kExl3Mcg = 0xCBAC1FEDu, kExl3Mul1 = 0x83DCD12Du;
float exl3_value(Exl3Codebook codebook, std::uint32_t state);

// The place in a tile of 16 x 16 of weight t, in the order of the path.
struct Exl3Place {
  std::uint8_t in, out;
};
const std::array<Exl3Place, 256>& exl3_places();

}  // namespace nibble
