#include "formats/float_bits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace nibble {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Values between 2^-kMaxExponent and 2^kMaxExponent stay normal in float32 with some room for
// scales.
constexpr double kMaxExponent = 120;

int magnitude_bits(const FloatBits& type) { return type.exponent + type.mantissa; }

// The real number of a magnitude, whatever its code is used for.
double magnitude_of(const FloatBits& type, int code) {
  const int field = code >> type.mantissa;
  const int mantissa = code & ((1 << type.mantissa) - 1);
  const double fraction = std::ldexp(mantissa, -type.mantissa);
  // exp2 of the whole and the fractional part apart, so that whole biases are exact.
  const double whole = std::floor(type.bias);
  const double unit = std::ldexp(std::exp2(whole - type.bias), -static_cast<int>(whole));
  return field == 0 ? std::ldexp(fraction, 1) * unit : std::ldexp(1 + fraction, field) * unit;
}

int largest_finite(const FloatBits& type) {
  const int all_ones = (1 << magnitude_bits(type)) - 1;
  if (type.kind == FloatKind::kFn) return all_ones - 1;
  if (type.kind == FloatKind::kIeee) return all_ones - (1 << type.mantissa);
  return all_ones;
}

// For types with a sign and whole biases whose values, and the number that places their last bit,
// are normal in float32.
std::optional<FloatRounding> rounding_of(const FloatBits& type) {
  const double last = 1 - type.bias - type.mantissa;  // exponent of the smallest value
  if (type.bias != std::floor(type.bias) || last < -126 || last > 127 - 23) return std::nullopt;
  FloatRounding rounding;
  rounding.mantissa = type.mantissa;
  rounding.rebias = static_cast<std::uint32_t>(127 - static_cast<int>(type.bias)) << 23;
  rounding.top = static_cast<float>(magnitude_of(type, largest_finite(type)));
  rounding.smallest_normal = static_cast<float>(std::exp2(1 - type.bias));
  rounding.magic = static_cast<float>(std::exp2(last + 23));
  rounding.sign = 1u << magnitude_bits(type);
  rounding.signed_zero = type.kind != FloatKind::kFnuz;
  return rounding;
}

}  // namespace

std::string_view to_string(FloatKind kind) {
  switch (kind) {
    case FloatKind::kFn:
      return "fn";
    case FloatKind::kIeee:
      return "ieee";
    case FloatKind::kFnuz:
      return "fnuz";
    case FloatKind::kAllFinite:
      return "all";
  }
  return "";
}

int code_bits(const FloatBits& type) { return magnitude_bits(type) + (type.has_sign ? 1 : 0); }

double default_bias(int exponent, FloatKind kind) {
  const double bias = std::max(1.0, std::ldexp(1, exponent - 1) - 1);
  return kind == FloatKind::kFnuz ? bias + 1 : bias;
}

FloatKind default_kind(int exponent, int mantissa) {
  if (exponent == 4 && mantissa == 3) return FloatKind::kFn;
  const bool half = (exponent == 5 && mantissa == 10) || (exponent == 8 && mantissa == 7);
  if (half || (exponent == 5 && mantissa == 2)) return FloatKind::kIeee;
  return FloatKind::kAllFinite;
}

std::string why_no_cast(const FloatBits& type) {
  if (type.exponent < 1 || type.exponent > 8 || type.mantissa < 0 || type.mantissa > 14) {
    return fmt::format("{} exponent and {} mantissa bits", type.exponent, type.mantissa);
  }
  const int bits = code_bits(type);
  if (bits < 2 || bits > 16) return fmt::format("{} bits: 2 to 16 are supported", bits);
  if (type.kind == FloatKind::kFnuz && !type.has_sign) return "fnuz needs a sign";
  if (largest_finite(type) < 1) return "no value but 0 is finite";
  if (!(std::abs(type.bias) <= 2 * kMaxExponent)) return fmt::format("a bias of {}", type.bias);
  const double largest = magnitude_of(type, largest_finite(type));
  const double smallest = magnitude_of(type, 1);
  // Multiples of a power of two are exact down to the least subnormal.
  const bool exact = type.bias == std::floor(type.bias);
  const double least = exact ? double{std::numeric_limits<float>::denorm_min()}
                             : double{std::numeric_limits<float>::min()};
  if (!(largest <= double{std::numeric_limits<float>::max()}) || !(smallest >= least)) {
    return fmt::format("a bias of {} leaves float32", type.bias);
  }
  return "";
}

std::string why_not(const FloatBits& type) {
  if (std::string reason = why_no_cast(type); !reason.empty()) return reason;
  const int bits = code_bits(type);
  if (bits > 8) return fmt::format("{} bits: 2 to 8 are supported", bits);
  const double largest = magnitude_of(type, largest_finite(type));
  const double smallest = magnitude_of(type, 1);
  if (!(largest <= std::exp2(kMaxExponent)) || !(smallest >= std::exp2(-kMaxExponent))) {
    return fmt::format("a bias of {} leaves float32", type.bias);
  }
  return "";
}

float value_of(const FloatBits& type, int code) {
  const int magnitude = code & ((1 << magnitude_bits(type)) - 1);
  const bool negative = magnitude != code;
  if (type.kind == FloatKind::kFnuz && negative && magnitude == 0) return kNan;
  if (magnitude > largest_finite(type)) {
    const bool infinite = type.kind == FloatKind::kIeee && magnitude == largest_finite(type) + 1;
    return infinite ? (negative ? -kInfinity : kInfinity) : kNan;
  }
  const auto value = static_cast<float>(magnitude_of(type, magnitude));
  return negative ? -value : value;
}

std::string name_of(const FloatBits& type) {
  std::string name = fmt::format("e{}m{}", type.exponent, type.mantissa);
  if (type.kind != default_kind(type.exponent, type.mantissa)) name += to_string(type.kind);
  if (type.bias != default_bias(type.exponent, type.kind)) name += fmt::format("b{}", type.bias);
  return name;
}

CodeTable table_of(const FloatBits& type) {
  const int bits = code_bits(type);
  std::vector<float> values;
  for (int code = 0; code < 1 << bits; ++code) values.push_back(value_of(type, code));
  return CodeTable(std::move(values), TieRule::kEvenCode, /*signed_zero=*/true,
                   type.has_sign ? rounding_of(type) : std::nullopt);
}

FloatCast::FloatCast(const FloatBits& type) : type_(type) {
  if (const std::string reason = why_no_cast(type); !reason.empty()) {
    fail(ErrorKind::kUnsupported, "float of {}", reason);
  }
  const int top = largest_finite(type);
  for (int code = 0; code <= top; ++code) {
    magnitudes_.push_back(static_cast<float>(magnitude_of(type, code)));
  }
  const double below = top == 1 ? 0 : magnitude_of(type, top - 1);
  // The step above the largest value is the one that its mantissa continues with.
  const int mantissa_end = (1 << type.mantissa) - 1;
  const double largest = magnitude_of(type, top);
  const double step = type.mantissa == 0 ? largest : largest - below;
  const bool step_doubles =
      (top & mantissa_end) == 0 && type.mantissa > 0 && top > mantissa_end + 1;
  limit_ = largest + (step_doubles ? step : step / 2);
  limit_rounds_up_ = top % 2 != 0;
}

std::optional<std::uint16_t> FloatCast::special_code(float x, double limit, bool limit_rounds_up,
                                                     Overflow overflow) const {
  const int sign = type_.has_sign ? 1 << magnitude_bits(type_) : 0;
  const bool has_nan = type_.kind == FloatKind::kFnuz || type_.kind == FloatKind::kFn ||
                       (type_.kind == FloatKind::kIeee && type_.mantissa > 0);
  const int nan = type_.kind == FloatKind::kFnuz ? sign : (1 << magnitude_bits(type_)) - 1;
  if (std::isnan(x)) {
    if (!has_nan) fail(ErrorKind::kUnsupported, "{}: it has no code of NaN", name_of(type_));
    return static_cast<std::uint16_t>(nan);
  }
  const double magnitude = std::abs(double{x});
  if (magnitude < limit || (magnitude == limit && !limit_rounds_up)) return std::nullopt;
  if (!type_.has_sign && x < 0) return std::nullopt;
  if (overflow == Overflow::kSaturate || type_.kind == FloatKind::kAllFinite) {
    return with_sign(x, magnitudes_.size() - 1);
  }
  const int special = type_.kind == FloatKind::kIeee ? largest_finite(type_) + 1 : nan;
  const bool takes_sign = x < 0 && type_.kind != FloatKind::kFnuz;
  return static_cast<std::uint16_t>(special | (takes_sign ? sign : 0));
}

std::uint16_t FloatCast::with_sign(float x, std::size_t magnitude) const {
  const bool dropped = type_.kind == FloatKind::kFnuz && magnitude == 0;
  const bool negative = type_.has_sign && std::signbit(x) && !dropped;
  return static_cast<std::uint16_t>(magnitude | (negative ? 1u << magnitude_bits(type_) : 0));
}

std::size_t FloatCast::rank_below(float x) const {
  const float magnitude = !type_.has_sign && x < 0 ? 0 : std::abs(x);
  const auto above = std::ranges::upper_bound(magnitudes_, magnitude);
  return static_cast<std::size_t>(above - magnitudes_.begin()) - 1;
}

std::uint16_t FloatCast::code(float x, Overflow overflow) const {
  if (const auto special = special_code(x, limit_, limit_rounds_up_, overflow)) return *special;
  std::size_t rank = rank_below(x);
  if (rank + 1 < magnitudes_.size()) {
    const double middle = (double{magnitudes_[rank]} + double{magnitudes_[rank + 1]}) / 2;
    const double magnitude = std::abs(double{x});
    const bool up = magnitude > middle || (magnitude == middle && rank % 2 != 0);
    if (up && (type_.has_sign || x > 0)) ++rank;
  }
  return with_sign(x, rank);
}

std::uint16_t FloatCast::stochastic_code(float x, double draw, Overflow overflow) const {
  const auto largest = double{magnitudes_.back()};
  if (const auto special = special_code(x, largest, false, overflow)) return *special;
  std::size_t rank = rank_below(x);
  if (rank + 1 < magnitudes_.size() && (type_.has_sign || x > 0)) {
    const auto low = double{magnitudes_[rank]}, high = double{magnitudes_[rank + 1]};
    const double magnitude = std::abs(double{x});
    // Draws below the share go to the greater value, which of negative ones is the nearer to zero.
    const bool up = x > 0 ? draw * (high - low) < magnitude - low
                          : magnitude > low && draw * (high - low) >= high - magnitude;
    if (up) ++rank;
  }
  return with_sign(x, rank);
}

const CodeTable& e4m3_table() {
  static const CodeTable table = table_of(FloatBits{});
  return table;
}

}  // namespace nibble
