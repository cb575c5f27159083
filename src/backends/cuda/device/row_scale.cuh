// How the values of a row of activations become codes under one scale; as ActivationScale of
// formats/activation_format.h.
#pragma once

#include <cuda_fp8.h>

#include "backends/cuda/device/quotient.cuh"

namespace nibble::cuda {

// The largest magnitude so far, and v's; infinite once a value is not finite.
__device__ __forceinline__ float larger_magnitude(float largest, float v) {
  return isfinite(v) ? fmaxf(largest, fabsf(v)) : INFINITY;
}

struct RowScale {
  float scale;    // of a code
  float inverse;  // of it
  bool zero;      // all codes are
  float stored;   // what the row is told to have
};
__device__ __forceinline__ RowScale row_scale(float largest, float most) {
  RowScale row;
  row.inverse = __fdiv_rn(most, largest);
  row.zero = !isfinite(row.inverse);
  row.scale = __fdiv_rn(largest, most);
  row.stored = isinf(largest) ? NAN : row.zero ? 0 : row.scale;
  return row;
}

// Codes of int8 of a row.
class Int8Codes {
 public:
  __device__ __forceinline__ explicit Int8Codes(const RowScale& row) : inverse_(row.inverse) {}

  // Of a in the low byte, of b in the next.
  __device__ __forceinline__ unsigned pair(float a, float b) const {
    return code(a) | code(b) << 8;
  }

 private:
  __device__ __forceinline__ unsigned code(float x) const {
    return static_cast<unsigned>(__float2int_rn(__fmul_rn(x, inverse_))) & 0xffu;
  }

  float inverse_;
};

// Codes of e4m3 of a row.
class E4m3Codes {
 public:
  __device__ __forceinline__ explicit E4m3Codes(const RowScale& row) {
    scale_ = row.scale;
    reciprocal_ = __frcp_rn(row.scale);
    plain_ = row.scale >= 0x1p-40f && row.scale <= 0x1p40f;
  }

  // As those of int8.
  __device__ __forceinline__ unsigned pair(float a, float b) const {
    return __nv_cvt_float2_to_fp8x2({over_scale(a), over_scale(b)}, __NV_SATFINITE, __NV_E4M3);
  }

 private:
  // Under scales that are neither large nor small what a quotient's remainder loses is far below
  // the smallest code's value.
  __device__ __forceinline__ float over_scale(float x) const {
    return plain_ ? quotient(x, scale_, reciprocal_) : __fdiv_rn(x, scale_);
  }

  float scale_;
  float reciprocal_;
  bool plain_;
};

}  // namespace nibble::cuda
