// How encoders put codes and scales into blocks. Internal to formats/.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/half.h"
#include "formats/block_decode.h"
#include "formats/block_search.h"

namespace nibble {

inline constexpr int kSuperBlock = 256;  // elements

// The nearest half that is finite, as a float.
inline float rounded_half(float x) { return to_float(to_f16(std::clamp(x, -65504.0f, 65504.0f))); }

// The values of IQ4_NL and IQ4_XS as codes.
inline constexpr TableCodes<16> kIq4Grid = [] {
  TableCodes<16> grid{};
  std::copy(std::begin(kIq4Values), std::end(kIq4Values), grid.values);
  return grid;
}();
inline int iq4_code(float value) {
  return static_cast<int>(std::find(std::begin(kIq4Values), std::end(kIq4Values), value) -
                          kIq4Values);
}

// code(i) of 32 elements into nibbles, the first 16 in the low halves; what is above goes to bit i
// of the result.
template <class Code>
std::uint32_t store_nibbles(std::uint8_t* bytes, const Code& code_of) {
  std::uint32_t high = 0;
  for (int i = 0; i < 32; ++i) {
    const int code = code_of(i);
    high |= static_cast<std::uint32_t>(code >> 4) << i;
    std::uint8_t& byte = bytes[i % 16];
    byte = static_cast<std::uint8_t>(i < 16 ? code & 15 : byte | (code & 15) << 4);
  }
  return high;
}

// code(i) of 256 elements, 2 bits each, as Q2_K, Q3_K and TQ2_0 hold them.
template <class Code>
void store_pairs(std::uint8_t* bytes, const Code& code_of) {
  std::fill_n(bytes, 64, std::uint8_t{0});
  for (int i = 0; i < kSuperBlock; ++i) {
    std::uint8_t& byte = bytes[i / 128 * 32 + i % 32];
    byte = static_cast<std::uint8_t>(byte | (code_of(i) & 3) << 2 * (i / 32 % 4));
  }
}

}  // namespace nibble
