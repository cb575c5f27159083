// Numbers inside blocks, which are little-endian and not aligned. Internal to formats/.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/half.h"

namespace nibble {

inline std::uint16_t load_u16(const std::uint8_t* at) {
  return static_cast<std::uint16_t>(at[0] | at[1] << 8);
}
inline std::uint32_t load_u32(const std::uint8_t* at) {
  return load_u16(at) | static_cast<std::uint32_t>(load_u16(at + 2)) << 16;
}
inline float load_f16(const std::uint8_t* at) { return to_float(f16{load_u16(at)}); }

inline void store_u16(std::uint16_t value, std::uint8_t* at) {
  at[0] = static_cast<std::uint8_t>(value & 255);
  at[1] = static_cast<std::uint8_t>(value >> 8);
}
inline void store_u32(std::uint32_t value, std::uint8_t* at) {
  store_u16(static_cast<std::uint16_t>(value & 0xffff), at);
  store_u16(static_cast<std::uint16_t>(value >> 16), at + 2);
}
inline void store_f16(float value, std::uint8_t* at) { store_u16(to_f16(value).bits, at); }

}  // namespace nibble
