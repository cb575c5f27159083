// Trellis-coded weights under error feedback: LDLQ (QuIP, arXiv 2307.13304), which is GPTQ for
// blocks of columns that are coded together, in the coordinates of formats/trellis.h.
#pragma once

#include <span>
#include <vector>

#include "formats/codec.h"
#include "formats/format.h"
#include "quantize/math/gptq.h"
#include "quantize/math/hessian.h"

namespace nibble {

// Sums of an input as the coded weights see it: moments and drift of the rotated x.
Hessian rotated_hessian(const Hessian& hessian);

// w [rows, cols], rotated, as a tensor of a trellis format. Blocks of 16 columns are coded from
// left to right, errors weighted by what the columns to come cannot make up for, and those are
// told. The factor is of rotated_hessian() in the order of the columns, in the host's memory. Does
// not depend on the number of threads.
QuantTensor encode_trellis(const FormatPtr& format, const InverseFactor& factor,
                           std::vector<float> w, std::int64_t rows, const Codec& codec);

}  // namespace nibble
