// Affine integers: w = scale * (code - zero), codes 0 ... 2^bits - 1, on planes
//
//   codes   I32 [rows, ceil(cols * bits / 32)]   little-endian bit stream along the row, first
//                                                code in the lowest bits, rows padded to words
//   scales  F16|BF16|F32 [rows, groups]          groups = cols / group; [rows, 1] by channel;
//                                                [1, 1] by tensor
//   zeros   U8 [rows, groups]                    asymmetric only; symmetric: zero = 2^(bits - 1)
//
// This is the compressed-tensors pack-quantized order (stored code = signed code + 2^(bits - 1)),
// so such files are mapped, not converted.
#pragma once

#include <cstdint>

#include "formats/format.h"

namespace nibble {

// Scale (already rounded to the scale type, positive) and zero point of one group.
struct AffineParams {
  float scale = 1;
  int zero = 0;

  bool operator==(const AffineParams&) const = default;
};

// Groups along a row of `cols` elements (1 for channel and tensor); of blocks the last may be cut.
std::int64_t groups_per_row(const Scheme& scheme, std::int64_t cols);

// Parameters that cover [lo, hi]. The range is widened to include 0; symmetric formats cover
// max(|lo|, |hi|) with scale = 2 * absmax / (2^bits - 1), or by their rule. An empty range (all
// zeros) has scale 1.
AffineParams affine_params(const WeightDescriptor& descriptor, float lo, float hi);

// The code of w under params: nearest, ties to even, clamped to the code range.
int affine_code(const WeightDescriptor& descriptor, const AffineParams& params, float w);

// Encodes with given parameters, row-major in the shape of the scales.
QuantTensor affine_encode(const FormatPtr& format, const float* w, std::int64_t rows,
                          std::int64_t cols, std::span<const AffineParams> params,
                          const Codec& codec = {});

// w -> decode(encode(w)) for `count` elements that share params; out may alias w. Vectorises.
void affine_round_trip(const WeightDescriptor& descriptor, const AffineParams& params,
                       const float* w, std::int64_t count, float* out);

// The parameters stored in a tensor of an affine format, [rows, groups].
std::vector<AffineParams> affine_params_of(const QuantTensor& tensor);

// Bit stream of `bits`-wide codes (the codes plane of one row).
void pack_codes(std::span<const std::uint8_t> codes, int bits, std::uint32_t* words);
void unpack_codes(const std::byte* words, int bits, std::int64_t begin, std::int64_t count,
                  std::uint8_t* codes);
// The same by kernels.
void pack_codes(std::span<const std::uint8_t> codes, int bits, std::uint32_t* words,
                const SpanKernels& spans);
void unpack_codes(const std::byte* words, int bits, std::int64_t begin, std::int64_t count,
                  std::uint8_t* codes, const SpanKernels& spans);

}  // namespace nibble
