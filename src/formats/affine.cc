#include "formats/affine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace nibble {
namespace {

float round_to(DType type, float v) {
  switch (type) {
    case DType::kF16:
      return to_float(to_f16(v));
    case DType::kBF16:
      return to_float(to_bf16(v));
    default:
      return v;
  }
}

float smallest_positive(DType type) {
  switch (type) {
    case DType::kF16:
      return to_float(f16{1});
    case DType::kBF16:
      return to_float(bf16{1});
    default:
      return std::numeric_limits<float>::denorm_min();
  }
}

int max_code(const WeightDescriptor& descriptor) { return (1 << descriptor.element.bits) - 1; }

// Adding and subtracting 1.5 * 2^23 rounds |x| < 2^22 to the nearest integer, ties to even, with
// plain additions that every instruction set can vectorise.
constexpr float kRoundingMagic = 12582912.0f;

// code - zero of w. Clamping before rounding equals clamping after it, as the bounds are integers.
inline float signed_code(float w, float scale, float low, float high) {
  const float t = std::min(std::max(w / scale, low), high);
  return (t + kRoundingMagic) - kRoundingMagic;
}

}  // namespace

std::int64_t groups_per_row(const Scheme& scheme, std::int64_t cols) {
  return scheme.granularity == Granularity::kGroup ? cols / scheme.group : 1;
}

AffineParams affine_params(const WeightDescriptor& descriptor, float lo, float hi) {
  const Scheme& scheme = descriptor.scheme;
  const int top = max_code(descriptor);
  const int middle = (top + 1) / 2;
  lo = std::min(lo, 0.0f);
  hi = std::max(hi, 0.0f);
  if (lo == 0 && hi == 0) return {1.0f, scheme.symmetric ? middle : 0};

  // The span of a float32 range can exceed float32, so it is taken in double.
  const double span = scheme.symmetric ? 2.0 * std::max(-static_cast<double>(lo), double{hi})
                                       : static_cast<double>(hi) - static_cast<double>(lo);
  float scale = round_to(scheme.scale_type, static_cast<float>(span / top));
  if (!std::isfinite(scale)) {
    fail(ErrorKind::kUnsupported, "weights up to {} need a scale beyond {}; use scales in F32",
         std::max(-lo, hi), to_string(scheme.scale_type));
  }
  // A range too small for the scale type still needs a scale that is not zero.
  if (scale == 0) scale = smallest_positive(scheme.scale_type);
  if (scheme.symmetric) return {scale, middle};
  return {scale, static_cast<int>(std::min(std::nearbyint(-lo / scale), static_cast<float>(top)))};
}

int affine_code(const WeightDescriptor& descriptor, const AffineParams& params, float w) {
  const auto low = static_cast<float>(-params.zero);
  const auto high = static_cast<float>(max_code(descriptor) - params.zero);
  return static_cast<int>(signed_code(w, params.scale, low, high)) + params.zero;
}

void affine_round_trip(const WeightDescriptor& descriptor, const AffineParams& params,
                       const float* w, std::int64_t count, float* out) {
  const float scale = params.scale;
  const auto low = static_cast<float>(-params.zero);
  const auto high = static_cast<float>(max_code(descriptor) - params.zero);
  for (std::int64_t i = 0; i < count; ++i) out[i] = scale * signed_code(w[i], scale, low, high);
}

void pack_codes(std::span<const std::uint8_t> codes, int bits, std::uint32_t* words) {
  std::uint64_t pending = 0;
  int filled = 0;
  for (const std::uint8_t code : codes) {
    pending |= static_cast<std::uint64_t>(code) << filled;
    filled += bits;
    if (filled >= 32) {
      *words++ = static_cast<std::uint32_t>(pending);
      pending >>= 32;
      filled -= 32;
    }
  }
  if (filled > 0) *words = static_cast<std::uint32_t>(pending);
}

void unpack_codes(const std::byte* words, int bits, std::int64_t begin, std::int64_t count,
                  std::uint8_t* codes) {
  const auto mask = (1u << bits) - 1;
  std::int64_t bit = begin * bits;
  for (std::int64_t i = 0; i < count; ++i, bit += bits) {
    // A code spans at most two bytes; the second is touched only when it does, so that nothing
    // beyond the row is read. Bytes of little-endian words are the stream in order.
    const std::byte* at = words + bit / 8;
    const int shift = static_cast<int>(bit % 8);
    unsigned value = std::to_integer<unsigned>(at[0]);
    if (shift + bits > 8) value |= std::to_integer<unsigned>(at[1]) << 8;
    codes[i] = static_cast<std::uint8_t>((value >> shift) & mask);
  }
}

}  // namespace nibble
