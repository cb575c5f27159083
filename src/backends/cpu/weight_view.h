// A QuantTensor as the kernels see it.
#pragma once

#include <optional>

#include "backends/cpu/kernel_table.h"
#include "formats/format.h"

namespace nibble::cpu {

Storage storage_of(DType dtype);  // F32, F16 or BF16
const unsigned char* bytes_of(const Tensor& plane);

// Nothing when the kernels cannot read the format (or groups that start inside a byte): such
// weights go through Format::decode. The view holds pointers into the planes.
std::optional<WeightView> weight_view(const QuantTensor& tensor);

// Decodes elements [begin, begin + count) of a row by a kernel if there is a view, or else by the
// format. `begin` is a multiple of 16.
void decode(const KernelTable& kernels, const std::optional<WeightView>& view,
            const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
            float* out);

}  // namespace nibble::cpu
