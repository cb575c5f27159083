// Divisions by one number, again and again.
#pragma once

#include <cuda_runtime.h>

namespace nibble::cuda {

// a / b, given the inverse of b rounded to nearest: a quotient, and a step of Newton's that rounds
// it as a division does (Markstein 1990). Remainders must not be subnormal.
__device__ __forceinline__ double quotient(double a, double b, double inverse) {
  const double q = __dmul_rn(a, inverse);
  return __fma_rn(__fma_rn(-q, b, a), inverse, q);
}
__device__ __forceinline__ float quotient(float a, float b, float inverse) {
  const float q = __fmul_rn(a, inverse);
  return __fmaf_rn(__fmaf_rn(-q, b, a), inverse, q);
}

}  // namespace nibble::cuda
