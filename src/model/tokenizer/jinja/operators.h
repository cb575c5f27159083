// Operators of Jinja values: pure functions. kCorrupt for operands that do not fit.
#pragma once

#include <optional>
#include <string>

#include "model/tokenizer/jinja/value.h"

namespace nibble::jinja {

// + - * / // % ** ~, comparisons, in and not in.
Value apply_operator(const std::string& op, const Value& left, const Value& right);

// value[index]
Value item(const Value& value, const Value& index);

// value[start:stop:step], each of which may be none.
Value slice(const Value& value, const Value& start, const Value& stop, const Value& step);

}  // namespace nibble::jinja
