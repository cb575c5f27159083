// Small floats as the tensors of conventions: the reverse of scaled_floats.h.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/encoding.h"

namespace nibble {

// The layouts that conventions share.
enum class FloatLayout {
  kFp8,    // E4M3 under scales in floats, of the matrix, its rows or blocks
  kNvfp4,  // E2M1 under E4M3 for 16 columns under one F32
  kMxfp4,  // E2M1 under E8M0 for 32 columns
  kMxfp8,  // E4M3 under the same
};
// None where no convention but nibble's own has the format.
std::optional<FloatLayout> float_layout(const Format& format);
inline bool has_four_bits(FloatLayout layout) {
  return layout == FloatLayout::kNvfp4 || layout == FloatLayout::kMxfp4;
}

// Codes as they are stored: F8_E4M3 [rows, cols], or U8 [rows, cols / 2], the first in the low
// half.
StoredTensor planned_codes(const std::string& name, FloatLayout layout, std::int64_t rows,
                           std::int64_t cols);
Tensor stored_codes(const QuantTensor& weight, FloatLayout layout);

// Scales [rows, groups], of E8M0 as U8; that of a whole matrix in the shape given.
StoredTensor planned_scales(const std::string& name, const QuantizedModule& module,
                            const Shape& of_matrix);
Tensor stored_scales(const QuantTensor& weight, const Shape& of_matrix);

// The F32 over the scales of NVFP4.
float second_scale(const QuantTensor& weight);
// The number whose inverse comes nearest to it, which is what some conventions store.
float nearest_inverse(float scale);

}  // namespace nibble
