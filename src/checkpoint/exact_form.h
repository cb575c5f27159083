// The same weight as another convention can store it.
#pragma once

#include <optional>
#include <string>

#include "checkpoint/encoding.h"

namespace nibble {

struct ExactForm {
  std::optional<QuantTensor> weight;
  std::string refusal;  // why there is no weight
};

// The weight of a module as the encoding can store it, with only types of scales, zero points and
// the like changed and every value kept: scales in a wider type, or in a narrower one that holds
// them; symmetric as asymmetric, or back; one scale for a matrix as one a row. `module` is as the
// weight is now.
ExactForm exact_form(const QuantTensor& weight, const QuantizedModule& module,
                     const WeightEncoding& encoding);

// The weight in the narrowest of BF16, F16 and F32 that holds every value.
QuantTensor plain_form(const QuantTensor& weight);

// Whether 0 and -0 are different values.
enum class Zeros { kSigned, kEqual };

// How the values of two weights differ ("12 of 4096 values differ, by 0.25 at most"); empty when
// all have the same bits, zeros perhaps apart.
std::string difference(const QuantTensor& a, const QuantTensor& b, Zeros zeros = Zeros::kSigned);

}  // namespace nibble
