// The texts of JSON's scalar values as expressions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/grammar/expression.h"

namespace nibble::grammar {

// Space that may stand between the parts of objects and lists: none, one, or the beginning of a new
// line indented by up to 20.
Expr json_space();
// One character of a string, escaped or not, as it is read: no lone surrogates.
Expr json_character();
// A string whose value `value` describes: characters that JSON does not let stand are escaped.
Expr json_string_of(const Expr& value);
// A string, without escapes, that is none of `names`.
Expr json_string_except(const std::vector<std::string>& names, RuleSet& rules);

struct NumberLimits {
  std::optional<double> least, most;
  bool least_excluded = false;
  bool most_excluded = false;
  bool any() const { return least.has_value() || most.has_value(); }
};
// At most 18 digits before the point, 17 behind it, and exponents of two digits; between limits no
// exponents and six digits behind the point. Not every number between the limits has to be among
// them, but each of them is between. kUsage when there is none.
Expr json_integer(const NumberLimits& limits);
Expr json_number(const NumberLimits& limits);

}  // namespace nibble::grammar
