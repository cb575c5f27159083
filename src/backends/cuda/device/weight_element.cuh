// One element of a weight on its canonical planes (formats/affine.h, formats/format.h): slow, and
// right for every format that the descriptor can say.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backends/cuda/kernels/weight_planes.h"

namespace nibble::cuda {

__device__ __forceinline__ unsigned load_bits(FloatType type, const void* data, std::int64_t i) {
  return type == FloatType::kF32 ? static_cast<const unsigned*>(data)[i]
                                 : static_cast<const unsigned short*>(data)[i];
}

__device__ __forceinline__ float float_of(FloatType type, unsigned bits) {
  switch (type) {
    case FloatType::kF16:
      return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
    case FloatType::kBF16:
      return __uint_as_float(bits << 16);
    case FloatType::kF32:
      return __uint_as_float(bits);
  }
  return 0;
}

__device__ __forceinline__ float load_float(FloatType type, const void* data, std::int64_t i) {
  return float_of(type, load_bits(type, data, i));
}

// The place of the scale of an element among all scales.
__device__ __forceinline__ std::int64_t scale_place(const WeightPlanes& w, std::int64_t row,
                                                    std::int64_t group) {
  return (w.scale_rows == 1 ? row : row / w.scale_rows) * w.groups + group;
}

// A scale in two steps, so that loads can be under way together: what is stored, then its value.
__device__ __forceinline__ unsigned load_scale(const WeightPlanes& w, std::int64_t at) {
  return w.scale_values != nullptr ? static_cast<const std::uint8_t*>(w.scales)[at]
                                   : load_bits(w.type, w.scales, at);
}

// Of some at once: a branch that each of them took would wait for its loads.
template <int kCount>
__device__ __forceinline__ void scale_values(const WeightPlanes& w,
                                             const std::int64_t (&at)[kCount],
                                             const unsigned (&stored)[kCount],
                                             float (&scales)[kCount]) {
  if (w.scale_values == nullptr) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) scales[i] = float_of(w.type, stored[i]);
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) scales[i] = w.scale_values[stored[i]];
  if (w.scale_factors != nullptr) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      scales[i] = __fmul_rn(scales[i], w.scale_factors[at[i] >> w.factor_shift]);
    }
  }
  if (w.scale_mean != nullptr) {
    const float mean = *w.scale_mean;
#pragma unroll
    for (int i = 0; i < kCount; ++i) scales[i] = __fadd_rn(scales[i], mean);
  }
}

__device__ __forceinline__ float scale_value(const WeightPlanes& w, std::int64_t at,
                                             unsigned stored) {
  float scale[1];
  scale_values<1>(w, {at}, {stored}, scale);
  return scale[0];
}

__device__ __forceinline__ float weight_element(const WeightPlanes& w, std::int64_t row,
                                                std::int64_t col) {
  if (w.bits == 0) return load_float(w.type, w.data, row * w.cols + col);
  const auto* words = static_cast<const unsigned*>(w.data) + row * w.row_words;
  const std::int64_t bit = col * w.bits;
  const std::int64_t word = bit / 32;
  // A code that crosses the end of its word continues in the next one of the same row.
  const unsigned low = words[word];
  const unsigned high = bit % 32 + w.bits > 32 ? words[word + 1] : 0;
  const unsigned code =
      __funnelshift_r(low, high, static_cast<unsigned>(bit % 32)) & ((1u << w.bits) - 1);
  const std::int64_t at = scale_place(w, row, col / w.group);
  const float scale = scale_value(w, at, load_scale(w, at));
  if (w.values != nullptr) return w.values[code] * scale;
  const int zero = w.zeros == nullptr ? 1 << (w.bits - 1) : w.zeros[at];
  return scale * static_cast<float>(static_cast<int>(code) - zero);
}

}  // namespace nibble::cuda
