// Random weights for measurements of speed.
#pragma once

#include <cstdint>

#include "formats/format.h"

namespace nibble {

// A weight [rows, cols] of normal numbers with this deviation: 64 random rows, again and again,
// since encoding them all would take longer than most measurements. Deterministic.
QuantTensor random_weight(const FormatPtr& format, std::int64_t rows, std::int64_t cols,
                          float deviation);

}  // namespace nibble
