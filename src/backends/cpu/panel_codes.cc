#include "backends/cpu/panel_codes.h"

#include <cstring>

#include "backends/cpu/int8_kernels.h"

namespace nibble::cpu {
namespace {

// Nibbles 0 ... 3 of a word into the low halves of four bytes.
std::uint32_t spread_nibbles(std::uint32_t word) {
  word = (word | word << 8) & 0x00ff00ffu;
  return (word | word << 4) & 0x0f0f0f0fu;
}

}  // namespace

void place_nibbles(const std::byte* stored, std::int64_t cols, unsigned char* panel) {
  for (std::int64_t u = 0; u < cols / 8; ++u, stored += 4, panel += kUnitBytes) {
    std::uint32_t word;
    std::memcpy(&word, stored, 4);
    word = spread_nibbles(word & 0xffffu) | spread_nibbles(word >> 16) << 4;
    std::memcpy(panel, &word, 4);
  }
}

void place_bytes(const std::byte* stored, std::int64_t cols, std::uint8_t flipped,
                 unsigned char* panel) {
  for (std::int64_t u = 0; u < cols / 4; ++u, stored += 4, panel += kUnitBytes) {
    std::uint32_t word;
    std::memcpy(&word, stored, 4);
    word ^= flipped * 0x01010101u;
    std::memcpy(panel, &word, 4);
  }
}

}  // namespace nibble::cpu
