// The scales of table formats: how they are chosen and stored. Internal to formats/.
#pragma once

#include "formats/format.h"

namespace nibble {

// Empty, or why these elements cannot have such scales.
std::string why_no_scales(const CodeTable& table, const Scheme& scheme);

// The planes after "codes".
std::vector<PlaneSpec> scale_planes(const Scheme& scheme, std::int64_t rows, std::int64_t cols);

// Those planes for a finite w [rows, cols]. kUnsupported when a scale leaves its type.
std::vector<Tensor> choose_scales(const CodeTable& table, const Scheme& scheme, const float* w,
                                  std::int64_t rows, std::int64_t cols);

// The scale of group `index`, counted over the whole matrix.
float scale_at(const QuantTensor& tensor, std::int64_t index);

}  // namespace nibble
