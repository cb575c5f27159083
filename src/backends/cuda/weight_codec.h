// Which formats kernels encode weights to.
#pragma once

#include "formats/format.h"
#include "ops/op.h"

namespace nibble::cuda {

// Whether they round a [rows, cols] matrix to the format, or why not.
Support encode_fits(const Format& format, std::int64_t rows, std::int64_t cols);

}  // namespace nibble::cuda
