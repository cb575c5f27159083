// How the values of a row of activations become codes under one scale; as ActivationScale of
// formats/activation_format.h.
#pragma once

#include <cuda_fp8.h>

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

__device__ __forceinline__ unsigned e4m3_code(float x, float scale) {
  return __nv_cvt_float_to_fp8(__fdiv_rn(x, scale), __NV_SATFINITE, __NV_E4M3);
}

}  // namespace nibble::cuda
