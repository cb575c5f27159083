// Tables of values as the encoder on the card looks weights up in.
#pragma once

#include <optional>

#include "backends/cuda/kernels/encode_weight.h"
#include "formats/span_kernels.h"

namespace nibble::cuda {

// For values from -top to top; nothing when two bounds lie in one cell, or when the sign of 0
// matters.
std::optional<BoundGrid> grid_of(const TableView& table, float top);

}  // namespace nibble::cuda
