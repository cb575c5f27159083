#include "formats/block_decode.h"

#include <bit>
#include <cmath>

#include "formats/block_bytes.h"
#include "formats/block_decode_grids.h"

namespace nibble {
namespace {

// Nibbles of 16 bytes: the low ones are elements 0 ... 15, the high ones 16 ... 31.
template <class Value>
void nibbles_of_32(const std::uint8_t* codes, float* out, const Value& value) {
  for (int j = 0; j < 16; ++j) {
    out[j] = value(codes[j] & 15, j);
    out[j + 16] = value(codes[j] >> 4, j + 16);
  }
}

// d, codes
void decode_q4_0(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  nibbles_of_32(block + 2, out, [&](int q, int) { return static_cast<float>(q - 8) * d; });
}

// d, m, codes
void decode_q4_1(const std::uint8_t* block, float* out) {
  const float d = load_f16(block), m = load_f16(block + 2);
  nibbles_of_32(block + 4, out, [&](int q, int) { return static_cast<float>(q) * d + m; });
}

// d, fifth bits, codes
void decode_q5_0(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  const std::uint32_t high = load_u32(block + 2);
  nibbles_of_32(block + 6, out, [&](int q, int i) {
    return static_cast<float>((q | static_cast<int>(high >> i & 1) << 4) - 16) * d;
  });
}

// d, m, fifth bits, codes
void decode_q5_1(const std::uint8_t* block, float* out) {
  const float d = load_f16(block), m = load_f16(block + 2);
  const std::uint32_t high = load_u32(block + 4);
  nibbles_of_32(block + 8, out, [&](int q, int i) {
    return static_cast<float>(q | static_cast<int>(high >> i & 1) << 4) * d + m;
  });
}

void signed_bytes(const std::uint8_t* codes, int count, float d, float* out) {
  for (int i = 0; i < count; ++i)
    out[i] = static_cast<float>(static_cast<std::int8_t>(codes[i])) * d;
}

void decode_q8_0(const std::uint8_t* block, float* out) {
  signed_bytes(block + 2, 32, load_f16(block), out);
}
// d, d * (sum of the codes), codes
void decode_q8_1(const std::uint8_t* block, float* out) {
  signed_bytes(block + 4, 32, load_f16(block), out);
}
// d as float32, codes, sums of 16 codes
void decode_q8_k(const std::uint8_t* block, float* out) {
  signed_bytes(block + 4, 256, std::bit_cast<float>(load_u32(block)), out);
}

// 2-bit codes of 256 elements: of each 128, 32 bytes hold 4 runs of 32, the first in the low bits.
template <class Value>
void pairs_of_256(const std::uint8_t* codes, float* out, const Value& value) {
  for (int i = 0; i < 256; ++i) {
    out[i] = value(codes[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3, i);
  }
}

// scale and minimum of 16 elements in a byte, codes, d, dmin
void decode_q2_k(const std::uint8_t* block, float* out) {
  const float d = load_f16(block + 80), dmin = load_f16(block + 82);
  pairs_of_256(block + 16, out, [&](int q, int i) {
    const float scale = d * static_cast<float>(block[i / 16] & 15);
    const float minimum = dmin * static_cast<float>(block[i / 16] >> 4);
    return scale * static_cast<float>(q) - minimum;
  });
}

// third bits (clear: less 4), codes, scales of 16 elements, d
void decode_q3_k(const std::uint8_t* block, float* out) {
  const float d = load_f16(block + 108);
  pairs_of_256(block + 32, out, [&](int q, int i) {
    const float scale = d * static_cast<float>(scale_of_k3(block + 96, i / 16));
    return scale * static_cast<float>(q - (block[i % 32] >> (i / 32) & 1 ? 0 : 4));
  });
}

// Codes of Q4_K and Q5_K: of each 64 elements, 32 bytes hold two runs of 32.
template <class Code>
void decode_k45(const std::uint8_t* block, float* out, const Code& code) {
  const float d = load_f16(block), dmin = load_f16(block + 2);
  for (int j = 0; j < 8; ++j) {
    const float scale = d * static_cast<float>(scale_of_k4(block + 4, j));
    const float minimum = dmin * static_cast<float>(minimum_of_k4(block + 4, j));
    for (int i = 0; i < 32; ++i) out[32 * j + i] = scale * static_cast<float>(code(j, i)) - minimum;
  }
}

// d, dmin, scales and minimums of 32 elements, codes
void decode_q4_k(const std::uint8_t* block, float* out) {
  const std::uint8_t* codes = block + 16;
  decode_k45(block, out, [&](int j, int i) { return codes[j / 2 * 32 + i] >> 4 * (j % 2) & 15; });
}

// d, dmin, scales and minimums of 32 elements, fifth bits, codes
void decode_q5_k(const std::uint8_t* block, float* out) {
  const std::uint8_t *high = block + 16, *codes = block + 48;
  decode_k45(block, out, [&](int j, int i) {
    return (codes[j / 2 * 32 + i] >> 4 * (j % 2) & 15) | (high[i] >> j & 1) << 4;
  });
}

// low four bits, high two bits, scales of 16 elements as signed bytes, d
void decode_q6_k(const std::uint8_t* block, float* out) {
  const float d = load_f16(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int part = i / 128, run = i / 32 % 4, at = i % 32;
    const int low = block[64 * part + at + 32 * (run % 2)] >> 4 * (run / 2) & 15;
    const int high = block[128 + 32 * part + at] >> 2 * run & 3;
    const auto scale = static_cast<std::int8_t>(block[192 + i / 16]);
    out[i] = d * static_cast<float>(scale) * static_cast<float>((low | high << 4) - 32);
  }
}

void decode_iq4_nl(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  nibbles_of_32(block + 2, out, [&](int q, int) { return d * static_cast<float>(kIq4Values[q]); });
}

// d, high bits of scales, low bits, codes
void decode_iq4_xs(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (int j = 0; j < 8; ++j) {
    const float scale = d * static_cast<float>(scale_of_iq4_xs(load_u16(block + 2), block + 4, j));
    nibbles_of_32(block + 8 + 16 * j, out + 32 * j,
                  [&](int q, int) { return scale * static_cast<float>(kIq4Values[q]); });
  }
}

// A digit to the base 3 of a byte that holds 5, as a fraction of 256.
int trit(std::uint8_t byte, int place) {
  constexpr int kPowers[] = {1, 3, 9, 27, 81};
  return ((byte * kPowers[place]) % 256 * 3) / 256;
}

// bytes of 5 digits, bytes of 4 digits, d
void decode_tq1_0(const std::uint8_t* block, float* out) {
  const float d = load_f16(block + 52);
  const auto run = [&](const std::uint8_t* bytes, int count, int digits) {
    for (int place = 0; place < digits; ++place) {
      for (int i = 0; i < count; ++i) *out++ = static_cast<float>(trit(bytes[i], place) - 1) * d;
    }
  };
  run(block, 32, 5);
  run(block + 32, 16, 5);
  run(block + 48, 4, 4);
}

void decode_tq2_0(const std::uint8_t* block, float* out) {
  const float d = load_f16(block + 64);
  pairs_of_256(block, out, [&](int q, int) { return static_cast<float>(q - 1) * d; });
}

void decode_mxfp4(const std::uint8_t* block, float* out) {
  const float d = half_scale_of_e8m0(block[0]);
  nibbles_of_32(block + 1, out,
                [&](int q, int) { return static_cast<float>(kDoubledE2m1[q]) * d; });
}

// scales of 16 elements, codes: 8 bytes hold the elements of a scale, the first 8 in the low halves
void decode_nvfp4(const std::uint8_t* block, float* out) {
  for (int g = 0; g < 4; ++g, out += 16) {
    const float d = half_scale_of_ue4m3(block[g]);
    for (int i = 0; i < 8; ++i) {
      const int byte = block[4 + 8 * g + i];
      out[i] = static_cast<float>(kDoubledE2m1[byte & 15]) * d;
      out[i + 8] = static_cast<float>(kDoubledE2m1[byte >> 4]) * d;
    }
  }
}

void decode_q1_0(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (int i = 0; i < 128; ++i) out[i] = block[2 + i / 8] >> (i % 8) & 1 ? d : -d;
}

void decode_q2_0(const std::uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (int i = 0; i < 64; ++i) {
    out[i] = static_cast<float>((block[2 + i / 4] >> 2 * (i % 4) & 3) - 1) * d;
  }
}

}  // namespace

float half_scale_of_e8m0(std::uint8_t code) {
  return std::bit_cast<float>(code < 2 ? 0x00200000u << code : (code - 1u) << 23);
}

float half_scale_of_ue4m3(std::uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 127) == 127) return 0;
  return exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -10)
                       : std::ldexp(static_cast<float>(8 + mantissa), exponent - 11);
}

BlockDecoder block_decoder(BlockType type) {
  constexpr BlockDecoder kDecoders[] = {
      decode_q4_0,    decode_q4_1,   decode_q5_0,    decode_q5_1,  decode_q8_0,   decode_q8_1,
      decode_q2_k,    decode_q3_k,   decode_q4_k,    decode_q5_k,  decode_q6_k,   decode_q8_k,
      decode_iq2_xxs, decode_iq2_xs, decode_iq3_xxs, decode_iq1_s, decode_iq4_nl, decode_iq3_s,
      decode_iq2_s,   decode_iq4_xs, decode_iq1_m,   decode_tq1_0, decode_tq2_0,  decode_mxfp4,
      decode_nvfp4,   decode_q1_0,   decode_q2_0};
  return kDecoders[static_cast<std::size_t>(type)];
}

}  // namespace nibble
