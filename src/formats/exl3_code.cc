#include "formats/exl3_code.h"

#include "base/half.h"

namespace nibble {
namespace {

float half_of(std::uint32_t bits) { return to_float(f16{static_cast<std::uint16_t>(bits)}); }

}  // namespace

float exl3_value(Exl3Codebook codebook, std::uint32_t state) {
  if (codebook == Exl3Codebook::kMul1) {
    const std::uint32_t x = state * kExl3Mul1;
    const std::uint32_t sum = (x & 255) + (x >> 8 & 255) + (x >> 16 & 255) + (x >> 24);
    // The product and the sum have 22 bits, so F16 rounds once, as its fused operation does.
    constexpr std::uint32_t kFactor = 0x1EEE, kOffset = 0xC931;
    return to_float(to_f16(static_cast<float>(1024 + sum) * half_of(kFactor) + half_of(kOffset)));
  }
  const bool mcg = codebook == Exl3Codebook::kMcg;
  std::uint32_t x = mcg ? state * kExl3Mcg : state * 89226354u + 64248484u;
  x = (x & 0x8FFF8FFFu) ^ 0x3B603B60u;
  return to_float(to_f16(half_of(x & 0xFFFF) + half_of(x >> 16)));
}

const std::array<Exl3Place, 256>& exl3_places() {
  static const auto all = [] {
    std::array<Exl3Place, 256> result{};
    for (int t = 0; t < 256; ++t) {
      const int lane = t / 8, i = t % 8;
      result[static_cast<std::size_t>(t)] = {
          static_cast<std::uint8_t>(2 * (lane % 4) + i % 2 + i % 4 / 2 * 8),
          static_cast<std::uint8_t>(lane / 4 + i / 4 * 8)};
    }
    return result;
  }();
  return all;
}

}  // namespace nibble
