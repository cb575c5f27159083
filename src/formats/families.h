// The families of formats that make_format() chooses from. Internal to formats/.
#pragma once

#include "formats/format.h"

namespace nibble {

// Plain F16, BF16 or F32 in one plane, "weight".
FormatPtr make_float_format(const WeightDescriptor& descriptor);

// Affine integers (affine.h).
FormatPtr make_affine_format(const WeightDescriptor& descriptor);

}  // namespace nibble
