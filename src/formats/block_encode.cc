#include "formats/block_encode.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "formats/block_bytes.h"
#include "formats/block_encode_k.h"
#include "formats/block_store.h"

namespace nibble {
namespace {

constexpr int kElements = 32;

// store_nibbles() of whole numbers plus `shift`.
std::uint32_t store_shifted(const float* codes, int shift, std::uint8_t* bytes) {
  return store_nibbles(bytes, [&](int i) { return static_cast<int>(codes[i]) + shift; });
}

// Codes -2^(bits-1) ... 2^(bits-1) - 1 under one scale, which may be negative.
float encode_symmetric(int bits, const float* w, const float* importance, float* codes) {
  const auto half = static_cast<float>(1 << (bits - 1));
  float anchors[26];
  int count = 0;
  for (int k = 0; k < 19; ++k) anchors[count++] = -half + 0.9f - 0.1f * static_cast<float>(k);
  for (int k = 0; k < 7; ++k) anchors[count++] = half - 1.3f + 0.2f * static_cast<float>(k);
  const IntegerCodes grid{-half, half - 1};
  const float d = rounded_half(search_scale(grid, w, importance, kElements, anchors));
  grid(w, inverse_of(d), 0, kElements, codes);
  return d;
}

void encode_q4_0(const float* w, const float* importance, std::uint8_t* block) {
  float codes[kElements];
  store_f16(encode_symmetric(4, w, importance, codes), block);
  store_shifted(codes, 8, block + 2);
}

void encode_q5_0(const float* w, const float* importance, std::uint8_t* block) {
  float codes[kElements];
  store_f16(encode_symmetric(5, w, importance, codes), block);
  store_u32(store_shifted(codes, 16, block + 6), block + 2);
}

AffineFit encode_affine(int bits, const float* w, const float* importance, float* codes) {
  const auto top = static_cast<float>((1 << bits) - 1);
  float spans[26];
  for (int k = 0; k < 26; ++k) spans[k] = top - 1 + 0.08f * static_cast<float>(k);
  AffineFit fit = search_affine(w, importance, kElements, top, false, spans);
  fit = {rounded_half(fit.scale), rounded_half(fit.offset)};
  IntegerCodes{0, top}(w, inverse_of(fit.scale), fit.offset, kElements, codes);
  return fit;
}

void encode_q4_1(const float* w, const float* importance, std::uint8_t* block) {
  float codes[kElements];
  const AffineFit fit = encode_affine(4, w, importance, codes);
  store_f16(fit.scale, block);
  store_f16(fit.offset, block + 2);
  store_shifted(codes, 0, block + 4);
}

void encode_q5_1(const float* w, const float* importance, std::uint8_t* block) {
  float codes[kElements];
  const AffineFit fit = encode_affine(5, w, importance, codes);
  store_f16(fit.scale, block);
  store_f16(fit.offset, block + 2);
  store_u32(store_shifted(codes, 0, block + 8), block + 4);
}

void encode_q8_0(const float* w, const float* importance, std::uint8_t* block) {
  constexpr float kAnchors[] = {127, -128, 126.5f, -127.5f, 127.5f, -128.5f};
  constexpr IntegerCodes kGrid{-128, 127};
  const float d = rounded_half(search_scale(kGrid, w, importance, kElements, kAnchors));
  float codes[kElements];
  kGrid(w, inverse_of(d), 0, kElements, codes);
  store_f16(d, block);
  for (int i = 0; i < kElements; ++i) {
    block[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(codes[i]));
  }
}

void encode_iq4_nl(const float* w, const float* importance, std::uint8_t* block) {
  constexpr float kAnchors[] = {-127, -120, -113, -134, -141, 113, 106, 99, 120, 127, -104, 89};
  const float d = rounded_half(search_scale(kIq4Grid, w, importance, kElements, kAnchors));
  float codes[kElements];
  kIq4Grid(w, inverse_of(d), 0, kElements, codes);
  store_f16(d, block);
  store_nibbles(block + 2, [&](int i) { return iq4_code(codes[i]); });
}

// E2M1, doubled.
constexpr TableCodes<15> kE2m1Grid = {{-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12}};

int e2m1_code(float doubled) {
  const int magnitude = static_cast<int>(std::abs(doubled));
  const auto found = std::ranges::find(kDoubledE2m1, magnitude) - kDoubledE2m1;
  return static_cast<int>(found) | (doubled < 0 ? 8 : 0);
}

// The scale code of first ... last with the least error, and the codes under it.
template <class ScaleOf>
int best_scale_code(int first, int last, const ScaleOf& scale_of, const float* w,
                    const float* importance, int n, float* codes) {
  float tried[kMostInSearch];
  float best_error = INFINITY;
  int best = 0;
  std::fill_n(codes, n, 0.0f);
  for (int code = std::max(first, 0); code <= last; ++code) {
    const float scale = scale_of(code);
    kE2m1Grid(w, inverse_of(scale), 0, n, tried);
    float error = 0;
    for (int i = 0; i < n; ++i) {
      const float difference = w[i] - scale * tried[i];
      error += importance[i] * difference * difference;
    }
    if (!(error < best_error)) continue;
    best_error = error;
    best = code;
    std::copy_n(tried, n, codes);
  }
  return best;
}

float largest_magnitude(const float* w, int n) {
  float largest = 0;
  for (int i = 0; i < n; ++i) largest = std::max(largest, std::abs(w[i]));
  return largest;
}

void encode_mxfp4(const float* w, const float* importance, std::uint8_t* block) {
  // 2^exponent <= largest; its code is 4, 6 or 8 and more under the three scales.
  const float largest = largest_magnitude(w, kElements);
  const int exponent = largest > 0 ? std::ilogb(largest) : 0;
  const int middle = std::clamp(exponent - 2 + 127, 1, 252);
  float codes[kElements];
  const int code = best_scale_code(
      middle - 1, middle + 2,
      [](int c) { return half_scale_of_e8m0(static_cast<std::uint8_t>(c)); }, w, importance,
      kElements, codes);
  block[0] = static_cast<std::uint8_t>(code);
  store_nibbles(block + 1, [&](int i) { return e2m1_code(codes[i]); });
}

void encode_nvfp4(const float* w, const float* importance, std::uint8_t* block) {
  constexpr int kGroup = 16;
  for (int g = 0; g < 4; ++g) {
    const float* x = w + kGroup * g;
    const float largest = largest_magnitude(x, kGroup);
    const auto scale_of = [](int c) { return half_scale_of_ue4m3(static_cast<std::uint8_t>(c)); };
    // Codes of scales under which the largest magnitude is stored as 6.9 ... 3.6.
    int first = 0;
    while (first < 126 && scale_of(first) * 13.8f < largest) ++first;
    int last = first;
    while (last < 126 && scale_of(last) * 7.2f < largest) ++last;
    float codes[kGroup];
    const int code =
        best_scale_code(first, last, scale_of, x, importance + kGroup * g, kGroup, codes);
    block[g] = static_cast<std::uint8_t>(code);
    std::uint8_t* bytes = block + 4 + 8 * g;
    for (int i = 0; i < 8; ++i) {
      bytes[i] = static_cast<std::uint8_t>(e2m1_code(codes[i]) | e2m1_code(codes[i + 8]) << 4);
    }
  }
}

// Codes -1, 0, 1 under the scale of the least error: with the k largest magnitudes coded as 1 it is
// their weighted mean, and what it explains is (sum w |x|)^2 / sum w.
float encode_ternary(const float* w, const float* importance, int* codes) {
  std::array<int, kSuperBlock> order;
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, std::ranges::greater{}, [&](int i) { return std::abs(w[i]); });
  double sum = 0, weight = 0, best_gain = 0, best = 0;
  for (const int i : order) {
    sum += static_cast<double>(importance[i]) * std::abs(w[i]);
    weight += static_cast<double>(importance[i]);
    if (!(weight > 0) || !(sum * sum > best_gain * weight)) continue;
    best_gain = sum * sum / weight;
    best = sum / weight;
  }
  const float d = rounded_half(static_cast<float>(best));
  for (int i = 0; i < kSuperBlock; ++i) {
    codes[i] = d > 0 && std::abs(w[i]) > d / 2 ? (w[i] > 0 ? 1 : -1) : 0;
  }
  return d;
}

void encode_tq1_0(const float* w, const float* importance, std::uint8_t* block) {
  int codes[kSuperBlock];
  store_f16(encode_ternary(w, importance, codes), block + 52);
  const int* from = codes;
  // The digits of a byte, as the fraction of 256 that decoding takes them from.
  const auto run = [&](std::uint8_t* bytes, int count, int digits) {
    for (int i = 0; i < count; ++i) {
      int value = 0;
      for (int place = 0; place < 5; ++place) {
        value = 3 * value + (place < digits ? from[place * count + i] + 1 : 0);
      }
      bytes[i] = static_cast<std::uint8_t>((value * 256 + 242) / 243);
    }
    from += count * digits;
  };
  run(block, 32, 5);
  run(block + 32, 16, 5);
  run(block + 48, 4, 4);
}

void encode_tq2_0(const float* w, const float* importance, std::uint8_t* block) {
  int codes[kSuperBlock];
  store_f16(encode_ternary(w, importance, codes), block + 64);
  store_pairs(block, [&](int i) { return codes[i] + 1; });
}

}  // namespace

BlockEncoder block_encoder(BlockType type) {
  switch (type) {
    case BlockType::kQ4_0:
      return encode_q4_0;
    case BlockType::kQ4_1:
      return encode_q4_1;
    case BlockType::kQ5_0:
      return encode_q5_0;
    case BlockType::kQ5_1:
      return encode_q5_1;
    case BlockType::kQ8_0:
      return encode_q8_0;
    case BlockType::kQ2_K:
      return encode_q2_k;
    case BlockType::kQ3_K:
      return encode_q3_k;
    case BlockType::kQ4_K:
      return encode_q4_k;
    case BlockType::kQ5_K:
      return encode_q5_k;
    case BlockType::kQ6_K:
      return encode_q6_k;
    case BlockType::kIq4Nl:
      return encode_iq4_nl;
    case BlockType::kIq4Xs:
      return encode_iq4_xs;
    case BlockType::kTq1_0:
      return encode_tq1_0;
    case BlockType::kTq2_0:
      return encode_tq2_0;
    case BlockType::kMxfp4:
      return encode_mxfp4;
    case BlockType::kNvfp4:
      return encode_nvfp4;
    default:
      return nullptr;
  }
}

}  // namespace nibble
