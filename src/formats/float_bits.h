// Small floating-point numbers by description: e exponent bits, m mantissa bits, a bias that may be
// any real number, and what the top codes mean.
//
//   exponent field 0   (-1)^s * (mantissa / 2^m) * 2^(1 - bias)           zero and subnormals
//   otherwise          (-1)^s * (1 + mantissa / 2^m) * 2^(field - bias)
//
// A code holds, from its highest bit, sign, exponent, mantissa. Sources: OCP OFP8 and Microscaling
// (MX) specifications 1.0; arXiv 2208.09225 for real-valued biases.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/code_table.h"

namespace nibble {

enum class FloatKind {
  kFn,         // no infinity; the code of all ones (under either sign) is NaN
  kIeee,       // the top exponent holds infinity (mantissa 0) and NaN
  kFnuz,       // no infinity, no -0; its code is the only NaN
  kAllFinite,  // every code is a number
};
// "fn", "ieee", "fnuz", "all".
std::string_view to_string(FloatKind kind);

struct FloatBits {
  int exponent = 4;
  int mantissa = 3;
  double bias = 7;
  FloatKind kind = FloatKind::kFn;
  bool has_sign = true;

  bool operator==(const FloatBits&) const = default;
};

// Bits of a code.
int code_bits(const FloatBits& type);
// 2^(e - 1) - 1, at least 1; one more for kFnuz.
double default_bias(int exponent, FloatKind kind);
// Empty, or why there are no codes of such a type: 2 to 8 bits, one exponent bit at least, values
// that float32 can hold under scales.
std::string why_not(const FloatBits& type);
// Empty, or why there is no cast to it: the same for 2 to 16 bits, without scales. f16 is
// {5, 10, 15, kIeee}, bf16 {8, 7, 127, kIeee}.
std::string why_no_cast(const FloatBits& type);
// The real number of a code, rounded to float32 (exact for whole biases); NaN and infinity as such.
float value_of(const FloatBits& type, int code);
// "e4m3", "e4m3fnuz", "e3m4b2.5": what differs from the default kind (fn for e4m3, ieee for e5m2,
// e5m10 and e8m7, all-finite otherwise) and the default bias is spelled out.
std::string name_of(const FloatBits& type);
FloatKind default_kind(int exponent, int mantissa);

// What becomes of values beyond the largest finite one.
enum class Overflow {
  kSaturate,  // the largest finite value, for infinities too
  kReport,    // infinity where the type has one, or else NaN, or else the largest finite value
};

// Casts. Immutable, thread-safe. The slow and certain definition that fast casts are tested
// against.
class FloatCast {
 public:
  // kUnsupported when why_no_cast() says so.
  explicit FloatCast(const FloatBits& type);

  // To nearest, ties to the even code. NaN becomes a positive NaN; kUnsupported where the type has
  // none. Negative values become 0 in types without a sign; -0 stays -0 where there is one.
  std::uint16_t code(float x, Overflow overflow = Overflow::kSaturate) const;
  // To one of the two neighbours, the nearer one with the greater probability, by a `draw` of
  // [0, 1); what lies beyond the largest value, and NaN, as above.
  std::uint16_t stochastic_code(float x, double draw,
                                Overflow overflow = Overflow::kSaturate) const;
  float value(int code) const { return value_of(type_, code); }

 private:
  // Of what is no number between the largest ones; none of others.
  std::optional<std::uint16_t> special_code(float x, double limit, bool limit_rounds_up,
                                            Overflow overflow) const;
  // The sign of x with the code of a magnitude.
  std::uint16_t with_sign(float x, std::size_t magnitude) const;
  // How many magnitudes, less one, are at most x.
  std::size_t rank_below(float x) const;

  FloatBits type_;
  std::vector<float> magnitudes_;  // finite ones, by code
  double limit_;                   // half a step above the largest finite value
  bool limit_rounds_up_;
};

// The table of a type, for why_not() == "".
CodeTable table_of(const FloatBits& type);
// That of e4m3 (fn).
const CodeTable& e4m3_table();

}  // namespace nibble
