// Weights in another format.
#pragma once

#include "backends/backend.h"

namespace nibble {

// `weight` (planes in the host's memory) rounded to nearest in a format that fits it: the bits and
// the errors of format->encode() of its values. The device does it where it can, else the host; the
// planes of the result are in the host's memory.
QuantTensor encoded(Backend& backend, const QuantTensor& weight, const FormatPtr& format);

}  // namespace nibble
