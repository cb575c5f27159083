// Tables times scales: w = value(code) * scale, for small floats and codebooks, on planes
//
//   codes         I32 [rows, ceil(cols * bits / 32)]   the bit stream of affine.h
//   scales        F16|BF16|F32|F8_E8M0|F8_E4M3|U8 [rows, groups]; [rows, 1] by channel; [1, 1] by
//                 tensor
//   tensor_scale  F32 [1, 1]        SecondLevel::kTensor only
//   block_scales  F32 [1, blocks]   SecondLevel::kDynamic only: blocks of 256 scales, row-major
//   mean          F32 [1, 1]        SecondLevel::kDynamic only
//
// The scale is a float32, and so is its product with the value; each is rounded once. Groups of
// zeros have a stored scale of 1 (kDynamic: 0). NaN in the input is kCorrupt, -0 stays -0 where the
// element has one. Sources: OCP Microscaling (MX) 1.0; NVIDIA NVFP4; bitsandbytes for kDynamic
// and QLoRA, arXiv 2305.14314.
#pragma once

#include "formats/format.h"

namespace nibble {

// The values of the codes of a format whose elements are kFloatBits or kCodebook.
const CodeTable& table_of(const Format& format);

// The scales of a tensor of a table format, second level included, [rows, groups].
std::vector<float> table_scales_of(const QuantTensor& tensor,
                                   const SpanKernels& spans = scalar_spans());

// Scales in one byte: the values of those bytes, [256], before the second level. Empty for scales
// that are floats.
std::vector<float> scale_bytes(const Scheme& scheme);
// Scales of one block of SecondLevel::kDynamic.
inline constexpr std::int64_t kScaleBlock = 256;

// w once more under the scales of `like`: nearest codes, the same scale planes. [rows, cols] of it.
QuantTensor encode_under_scales(const QuantTensor& like, const float* w, const Codec& codec = {});

// Codes of w under scales, as the codec rounds. As SpanKernels::table_codes; element i of the run
// is number `index` + i of its matrix.
void round_to_table(const TableView& table, const float* scales, const float* w,
                    std::int64_t groups, std::int64_t length, std::int64_t index,
                    const Codec& codec, std::uint8_t* codes);

}  // namespace nibble
