// Rounding to integers of several widths. Internal to formats/.
#pragma once

#include "formats/mixed_format.h"

namespace nibble {

// The step of a code of 4 bits under the largest scale of its group.
float mixed_scale(int code, float scale_max);

// Columns are ordered by Codec::importance, or, where that is not known, by the sum of the squares
// of their weights, largest first; the lower index among equals. The largest scale of a group is
// the one of 26 from 0.7 to 1.2 times what its largest weight needs, and the scale of a row the one
// near what its own needs, for which the weighted squared error is least. kUnsupported for weights
// beyond F16.
QuantTensor mixed_encode(const FormatPtr& format, const float* w, std::int64_t rows,
                         std::int64_t cols, const Codec& codec);

}  // namespace nibble
