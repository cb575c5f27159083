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

// Eight codes, a byte each, as one run of bits, and back: neighbours meet, then pairs, then fours.
constexpr std::uint64_t kOddBytes = 0xff00ff00ff00ff00u;
constexpr std::uint64_t kOddPairs = 0xffff0000ffff0000u;
constexpr std::uint64_t kHighHalf = 0xffffffff00000000u;

std::uint64_t squeeze(std::uint64_t x, int bits) {
  x = (x & ~kOddBytes) | (x & kOddBytes) >> (8 - bits);
  x = (x & ~kOddPairs) | (x & kOddPairs) >> (16 - 2 * bits);
  return (x & ~kHighHalf) | (x & kHighHalf) >> (32 - 4 * bits);
}

std::uint64_t spread(std::uint64_t x, int bits) {
  const std::uint64_t fours = (std::uint64_t{1} << 4 * bits) - 1;
  x = (x & fours) | (x << (32 - 4 * bits) & fours << 32);
  const std::uint64_t pairs = ((std::uint64_t{1} << 2 * bits) - 1) * 0x0000000100000001u;
  x = (x & pairs) | (x << (16 - 2 * bits) & pairs << 16);
  const std::uint64_t ones = ((std::uint64_t{1} << bits) - 1) * 0x0001000100010001u;
  return (x & ones) | (x << (8 - bits) & ones << 8);
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

// The scale of weights up to `absmax` as its type holds it.
float stored_scale(DType type, double wanted, float absmax) {
  const float scale = round_to(type, static_cast<float>(wanted));
  if (!std::isfinite(scale)) {
    fail(ErrorKind::kUnsupported, "weights up to {} need a scale beyond {}; use scales in F32",
         absmax, to_string(type));
  }
  // A range too small for the scale type still needs a scale that is not zero.
  return scale == 0 ? smallest_positive(type) : scale;
}

float next_above(DType type, float v) {
  if (type == DType::kF16) return to_float(f16{static_cast<std::uint16_t>(to_f16(v).bits + 1)});
  if (type == DType::kBF16) return to_float(bf16{static_cast<std::uint16_t>(to_bf16(v).bits + 1)});
  return std::nextafter(v, std::numeric_limits<float>::infinity());
}

// The rules of signed integers.
AffineParams signed_params(const WeightDescriptor& descriptor, float absmax) {
  const DType type = descriptor.scheme.scale_type;
  const int middle = (max_code(descriptor) + 1) / 2;
  const int top = descriptor.scheme.rule == ScaleRule::kStrict ? middle - 1 : middle;
  float scale = stored_scale(type, double{absmax} / top, absmax);
  // A type with few bits may round so far down that the code below the lowest would be nearer.
  if (absmax / scale >= static_cast<float>(top) + 0.5f) scale = next_above(type, scale);
  return {scale, middle};
}

}  // namespace

std::int64_t groups_per_row(const Scheme& scheme, std::int64_t cols) {
  if (scheme.granularity == Granularity::kBlock) return (cols + scheme.group - 1) / scheme.group;
  return scheme.granularity == Granularity::kGroup ? cols / scheme.group : 1;
}

AffineParams affine_params(const WeightDescriptor& descriptor, float lo, float hi) {
  const Scheme& scheme = descriptor.scheme;
  const int top = max_code(descriptor);
  const int middle = (top + 1) / 2;
  lo = std::min(lo, 0.0f);
  hi = std::max(hi, 0.0f);
  if (lo == 0 && hi == 0) return {1.0f, scheme.symmetric ? middle : 0};

  if (scheme.rule == ScaleRule::kStrict || scheme.rule == ScaleRule::kFull) {
    return signed_params(descriptor, std::max(-lo, hi));
  }
  // The span of a float32 range can exceed float32, so it is taken in double.
  const double span = scheme.symmetric ? 2.0 * std::max(-static_cast<double>(lo), double{hi})
                                       : static_cast<double>(hi) - static_cast<double>(lo);
  const float scale = stored_scale(scheme.scale_type, span / top, std::max(-lo, hi));
  if (scheme.symmetric) return {scale, middle};
  const float zero = std::min(-lo / scale, static_cast<float>(top));
  return {scale, static_cast<int>((zero + kRoundingMagic) - kRoundingMagic)};
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
  const auto count = static_cast<std::int64_t>(codes.size());
  const std::uint8_t* const from = codes.data();
  auto* out = reinterpret_cast<std::byte*>(words);
  std::byte* const end = out + (count * bits + 31) / 32 * 4;
  std::int64_t i = 0;
  if (bits == 8) {
    std::memcpy(out, from, codes.size());
    i = count;
    out += count;
  } else if (bits == 4) {
    for (; i + 2 <= count; i += 2) *out++ = std::byte(from[i] | from[i + 1] << 4);
  }
  for (; i + 8 <= count && end - out >= 8; i += 8, out += bits) {
    std::uint64_t eight;
    std::memcpy(&eight, from + i, 8);
    eight = squeeze(eight, bits);
    std::memcpy(out, &eight, 8);  // what is too much is written over by the next ones
  }
  std::uint64_t pending = 0;
  int filled = 0;
  for (; i < count; ++i) {
    pending |= std::uint64_t{from[i]} << filled;
    for (filled += bits; filled >= 8; filled -= 8, pending >>= 8) *out++ = std::byte(pending & 255);
  }
  for (; out < end; pending = 0) *out++ = std::byte(pending);
}

void unpack_codes(const std::byte* words, int bits, std::int64_t begin, std::int64_t count,
                  std::uint8_t* codes) {
  const auto mask = (1u << bits) - 1;
  const std::int64_t end = begin + count;
  const std::int64_t end_byte = (end * bits + 7) / 8;
  const auto one = [&](std::int64_t i) {
    // A code spans at most two bytes; the second is touched only when it does, so that nothing
    // beyond the codes is read. Bytes of little-endian words are the stream in order.
    const std::int64_t bit = i * bits;
    const std::byte* at = words + bit / 8;
    const int shift = static_cast<int>(bit % 8);
    unsigned value = std::to_integer<unsigned>(at[0]);
    if (shift + bits > 8) value |= std::to_integer<unsigned>(at[1]) << 8;
    *codes++ = static_cast<std::uint8_t>((value >> shift) & mask);
  };
  if (bits == 8) {
    std::memcpy(codes, words + begin, static_cast<std::size_t>(count));
    return;
  }
  std::int64_t i = begin;
  for (; i < end && i % 8 != 0; ++i) one(i);
  if (bits == 4) {
    const std::byte* const pairs = words + i / 2;
    const std::int64_t whole = (end - i) / 2;
    for (std::int64_t k = 0; k < whole; ++k) {
      codes[2 * k] = std::to_integer<std::uint8_t>(pairs[k] & std::byte{15});
      codes[2 * k + 1] = std::to_integer<std::uint8_t>(pairs[k] >> 4);
    }
    codes += 2 * whole;
    i += 2 * whole;
  }
  for (; i + 8 <= end && i * bits / 8 + 8 <= end_byte; i += 8, codes += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, words + i * bits / 8, 8);
    eight = spread(eight, bits);
    std::memcpy(codes, &eight, 8);
  }
  for (; i < end; ++i) one(i);
}

namespace {

// Blocks of 64 codes in `count` that kernels may take: of most widths they touch what is behind.
std::int64_t whole_blocks(std::int64_t count, int bits) {
  return bits == 4 || bits == 8 ? count / 64 : std::max<std::int64_t>(count / 64 - 1, 0);
}

}  // namespace

void pack_codes(std::span<const std::uint8_t> codes, int bits, std::uint32_t* words,
                const SpanKernels& spans) {
  const std::int64_t blocks = whole_blocks(static_cast<std::int64_t>(codes.size()), bits);
  spans.pack(bits, codes.data(), blocks, reinterpret_cast<unsigned char*>(words));
  pack_codes(codes.subspan(static_cast<std::size_t>(64 * blocks)), bits, words + 2 * bits * blocks);
}

void unpack_codes(const std::byte* words, int bits, std::int64_t begin, std::int64_t count,
                  std::uint8_t* codes, const SpanKernels& spans) {
  if (begin % 8 == 0) {
    const std::int64_t blocks = whole_blocks(count, bits);
    spans.unpack(bits, reinterpret_cast<const unsigned char*>(words) + begin / 8 * bits, blocks,
                 codes);
    begin += 64 * blocks;
    count -= 64 * blocks;
    codes += 64 * blocks;
  }
  unpack_codes(words, bits, begin, count, codes);
}

}  // namespace nibble
