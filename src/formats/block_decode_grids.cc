#include "formats/block_decode_grids.h"

#include <bit>

#include "formats/block_bytes.h"
#include "formats/block_grids.h"

namespace nibble {
namespace {

// Seven signs are stored; the eighth makes their number even.
int even_signs(std::uint32_t index) {
  const auto low = index & 127;
  return static_cast<int>(low | (std::popcount(low) % 2u) << 7);
}

// Eight elements: magnitudes from a grid, a sign bit each.
void signed_octet(std::uint16_t packed, int signs, float scale, float* out) {
  constexpr float kMagnitudes[] = {8, 25, 43};
  for (int i = 0; i < 8; ++i) {
    const float value = scale * kMagnitudes[packed >> 2 * i & 3];
    out[i] = signs >> i & 1 ? -value : value;
  }
}

// Four elements likewise; value(code of 3 bits).
template <class Value>
void signed_quartet(std::uint16_t packed, int signs, float scale, float* out, const Value& value) {
  for (int i = 0; i < 4; ++i) {
    const float product = scale * value(packed >> 4 * i & 7);
    out[i] = signs >> i & 1 ? -product : product;
  }
}

float value_of_iq3_xxs(int code) { return code == 7 ? 62.0f : static_cast<float>(4 + 8 * code); }
float value_of_iq3_s(int code) { return static_cast<float>(1 + 2 * code); }

// Eight elements: a grid of -1, 0, 1 (codes 0, 1, 2), all shifted.
void shifted_octet(std::uint16_t packed, float shift, float scale, float* out) {
  for (int i = 0; i < 8; ++i) {
    out[i] = scale * (static_cast<float>((packed >> 2 * i & 3) - 1) + shift);
  }
}

constexpr float kShift = 0.125f;

}  // namespace

// d; of 32 elements four indices, then four times seven signs and the scale in a word
void decode_iq2_xxs(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (int j = 0; j < 8; ++j) {
    const std::uint8_t* indices = block + 2 + 8 * j;
    const std::uint32_t word = load_u32(indices + 4);
    const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.25f;
    for (int k = 0; k < 4; ++k) {
      signed_octet(kGridIq2Xxs[indices[k]], even_signs(word >> 7 * k), scale, out + 32 * j + 8 * k);
    }
  }
}

// d; of 8 elements an index of 9 bits and seven signs; scales of 16 elements, 4 bits each
void decode_iq2_xs(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (int k = 0; k < 32; ++k) {
    const std::uint16_t word = load_u16(block + 2 + 2 * k);
    const int nibble = block[66 + k / 4] >> 4 * (k / 2 % 2) & 15;
    const float scale = d * (0.5f + static_cast<float>(nibble)) * 0.25f;
    signed_octet(kGridIq2Xs[word & 511], even_signs(word >> 9), scale, out + 8 * k);
  }
}

// d, low bits of indices, signs, high bits of indices, scales of 16 elements
void decode_iq2_s(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (int k = 0; k < 32; ++k) {
    const int index = block[2 + k] | (block[66 + k / 4] >> 2 * (k % 4) & 3) << 8;
    const int nibble = block[74 + k / 4] >> 4 * (k / 2 % 2) & 15;
    const float scale = d * (0.5f + static_cast<float>(nibble)) * 0.25f;
    signed_octet(kGridIq2S[index], block[34 + k], scale, out + 8 * k);
  }
}

// d, indices of 4 elements; of 32 elements four times seven signs and the scale in a word
void decode_iq3_xxs(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (int j = 0; j < 8; ++j) {
    const std::uint32_t word = load_u32(block + 66 + 4 * j);
    const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
    for (int k = 0; k < 8; ++k) {
      const int signs = even_signs(word >> 7 * (k / 2)) >> 4 * (k % 2);
      signed_quartet(kGridIq3Xxs[block[2 + 8 * j + k]], signs, scale, out + 32 * j + 4 * k,
                     value_of_iq3_xxs);
    }
  }
}

// d, low bits of indices, high bits, signs, scales of 32 elements
void decode_iq3_s(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (int k = 0; k < 64; ++k) {
    const int index = block[2 + k] | (block[66 + k / 8] >> (k % 8) & 1) << 8;
    const int nibble = block[106 + k / 16] >> 4 * (k / 8 % 2) & 15;
    const int signs = block[74 + k / 2] >> 4 * (k % 2);
    signed_quartet(kGridIq3S[index], signs, d * static_cast<float>(1 + 2 * nibble), out + 4 * k,
                   value_of_iq3_s);
  }
}

// d, low bits of indices; of 32 elements four times three high bits, the scale, and the shift
void decode_iq1_s(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (int k = 0; k < 32; ++k) {
    const std::uint16_t word = load_u16(block + 34 + 2 * (k / 4));
    const int index = block[2 + k] | (word >> 3 * (k % 4) & 7) << 8;
    const float scale = d * static_cast<float>(2 * (word >> 12 & 7) + 1);
    shifted_octet(kGridIq1S[index], word & 0x8000 ? -kShift : kShift, scale, out + 8 * k);
  }
}

// low bits of indices; of 8 elements three high bits and the shift; of 64 elements four scales of 3
// bits and 4 bits of d
void decode_iq1_m(const std::uint8_t* block, float* out) {
  const std::uint8_t* scales = block + 48;
  std::uint16_t bits = 0;
  for (int i = 0; i < 4; ++i) {
    bits = static_cast<std::uint16_t>(bits | load_u16(scales + 2 * i) >> 12 << 4 * i);
  }
  const float d = to_float(f16{bits});
  for (int k = 0; k < 32; ++k) {
    const int high = block[32 + k / 2] >> 4 * (k % 2);
    const int index = block[k] | (high & 7) << 8;
    const int code = load_u16(scales + 2 * (k / 8)) >> 3 * (k / 2 % 4) & 7;
    shifted_octet(kGridIq1S[index], high & 8 ? -kShift : kShift,
                  d * static_cast<float>(2 * code + 1), out + 8 * k);
  }
}

}  // namespace nibble
