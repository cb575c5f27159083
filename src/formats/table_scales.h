// The scales of table formats: how they are chosen and stored. Internal to formats/.
#pragma once

#include "formats/format.h"

namespace nibble {

// Empty, or why these elements cannot have such scales.
std::string why_no_scales(const CodeTable& table, const Scheme& scheme);

// The planes after "codes".
std::vector<PlaneSpec> scale_planes(const Scheme& scheme, std::int64_t rows, std::int64_t cols);

struct ChosenScales {
  std::vector<Tensor> planes;
  Tensor codes;  // the plane "codes" of nearest codes, where the choice came by it, or else empty
};

// Those planes for a w [rows, cols]. kCorrupt, naming the format, when it is not finite;
// kUnsupported when a scale leaves its type.
ChosenScales choose_scales(const Format& format, const CodeTable& table, const float* w,
                           std::int64_t rows, std::int64_t cols, const Codec& codec);

// The scales of `count` groups from `first` on, counted over the whole matrix.
void scales_at(const QuantTensor& tensor, std::int64_t first, std::int64_t count, float* scales,
               const SpanKernels& spans);

}  // namespace nibble
