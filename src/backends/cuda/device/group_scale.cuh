// Scales of groups of weights from their ranges, with the bits of formats/affine.h and
// formats/table_scales.h.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "backends/cuda/device/quotient.cuh"
#include "backends/cuda/device/weight_element.cuh"
#include "backends/cuda/kernels/encode_weight.h"

namespace nibble::cuda {

// The smaller or larger of two numbers; NaN if either is.
__device__ __forceinline__ float smaller(float a, float b) {
  float out;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(out) : "f"(a), "f"(b));
  return out;
}
__device__ __forceinline__ float larger(float a, float b) {
  float out;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(out) : "f"(a), "f"(b));
  return out;
}

// Ranges of some weights, and 0: NaN or infinite when one of them is. Without initializers, as
// shared memory has none: Range{} is that of 0.
struct Magnitude {
  float most;

  __device__ __forceinline__ void add(float w) { most = larger(most, fabsf(w)); }
  __device__ __forceinline__ void add(const Magnitude& other) { most = larger(most, other.most); }
  __device__ __forceinline__ Magnitude of_lane(int distance) const {
    return {__shfl_xor_sync(~0u, most, distance)};
  }
  __device__ __forceinline__ float absmax() const { return most; }
};

struct SignedRange {
  float lo;
  float hi;

  __device__ __forceinline__ void add(float w) {
    lo = smaller(lo, w);
    hi = larger(hi, w);
  }
  __device__ __forceinline__ void add(const SignedRange& other) {
    lo = smaller(lo, other.lo);
    hi = larger(hi, other.hi);
  }
  __device__ __forceinline__ SignedRange of_lane(int distance) const {
    return {__shfl_xor_sync(~0u, lo, distance), __shfl_xor_sync(~0u, hi, distance)};
  }
  __device__ __forceinline__ float absmax() const { return larger(-lo, hi); }
};

// Joins the ranges of `lanes` neighbours, a power of two; all 32 lanes of the warp call it.
template <class Range>
__device__ __forceinline__ void join_lanes(Range& range, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) range.add(range.of_lane(distance));
}

// A scale as it is stored, as a number, and the zero point of integers.
struct StoredScale {
  unsigned bits = 0;
  float value = 1;
  int zero = 0;
};

__device__ __forceinline__ unsigned float_bits(FloatType type, float v) {
  switch (type) {
    case FloatType::kF16:
      return __half_as_ushort(__float2half_rn(v));
    case FloatType::kBF16:
      return __bfloat16_as_ushort(__float2bfloat16_rn(v));
    case FloatType::kF32:
      break;
  }
  return __float_as_uint(v);
}

// A positive scale in its type: at least the least of it. `refused` when it is beyond.
__device__ __forceinline__ StoredScale float_scale(FloatType type, float wanted, bool& refused) {
  unsigned bits = float_bits(type, wanted);
  if (bits == 0) bits = 1;
  const float value = float_of(type, bits);
  refused = refused || !isfinite(value);
  return {bits, value, 0};
}

// Of integers: affine_params() of formats/affine.h.
__device__ __forceinline__ StoredScale integer_scale(const EncodeWeight& args,
                                                     const SignedRange& range, bool& refused) {
  const bool symmetric = args.zeros == nullptr;
  const int top = (1 << args.bits) - 1;
  const int middle = (top + 1) / 2;
  const float absmax = range.absmax();
  if (absmax == 0) return {float_bits(args.float_type, 1), 1, symmetric ? middle : 0};
  if (args.top_code != 0) {
    StoredScale s =
        float_scale(args.float_type, static_cast<float>(double{absmax} / args.top_code), refused);
    // A type with few bits may round so far down that the code below the lowest would be nearer.
    if (__fdiv_rn(absmax, s.value) >= static_cast<float>(args.top_code) + 0.5f) {
      ++s.bits;
      s.value = float_of(args.float_type, s.bits);
    }
    s.zero = middle;
    return s;
  }
  const double span = symmetric ? 2.0 * double{absmax} : double{range.hi} - double{range.lo};
  StoredScale s = float_scale(args.float_type,
                              static_cast<float>(quotient(span, top, args.top_inverse)), refused);
  s.zero = symmetric
               ? middle
               : __float2int_rn(fminf(__fdiv_rn(-range.lo, s.value), static_cast<float>(top)));
  return s;
}

__device__ __forceinline__ int floor_log2(double x) {
  return static_cast<int>(__double_as_longlong(x) >> 52) - 1023;
}

// A power of two, stored as its exponent; `by_floor` or by ceil.
__device__ __forceinline__ StoredScale exponent_scale(const EncodeWeight& args, float absmax,
                                                      bool by_floor) {
  constexpr int kBias = 127;
  int exponent = 0;
  if (absmax > 0) {
    if (by_floor) {
      exponent = floor_log2(double{absmax}) - args.top_exponent;
    } else {
      const double ratio = double{absmax} / double{args.top};
      exponent = floor_log2(ratio) + ((__double_as_longlong(ratio) << 12) != 0 ? 1 : 0);
    }
  }
  const unsigned code = static_cast<unsigned>(min(max(exponent, -kBias), kBias) + kBias);
  // 2^-127 is no normal float32.
  return {code, __uint_as_float(code == 0 ? 0x00400000u : code << 23), 0};
}

// A multiple of the scale of the matrix, at least the least one.
__device__ __forceinline__ StoredScale e4m3_scale(float absmax, float top, float whole) {
  const float wanted = absmax == 0 ? 1 : __fdiv_rn(__fdiv_rn(absmax, top), whole);
  const unsigned code = max(1u, unsigned{__nv_cvt_float_to_fp8(wanted, __NV_SATFINITE, __NV_E4M3)});
  const auto stored = static_cast<__nv_fp8_storage_t>(code);
  const float value = __half2float(__half(__nv_cvt_fp8_to_halfraw(stored, __NV_E4M3)));
  return {code, __fmul_rn(value, whole), 0};
}

// Of tables; `second`: the other one of a choice.
__device__ __forceinline__ StoredScale table_scale(const EncodeWeight& args, float absmax,
                                                   bool second, bool& refused) {
  if (args.scale == GroupScale::kE8M0) return exponent_scale(args, absmax, args.floor && !second);
  if (args.scale == GroupScale::kE4M3) {
    return e4m3_scale(absmax, second ? args.other_top : args.top, __ldg(args.whole));
  }
  return float_scale(args.float_type, absmax == 0 ? 1 : __fdiv_rn(absmax, args.top), refused);
}

__device__ __forceinline__ void store_scale(const EncodeWeight& args, std::int64_t at,
                                            const StoredScale& s) {
  if (args.scale != GroupScale::kFloat) {
    static_cast<std::uint8_t*>(args.scales)[at] = static_cast<std::uint8_t>(s.bits);
  } else if (args.float_type == FloatType::kF32) {
    static_cast<unsigned*>(args.scales)[at] = s.bits;
  } else {
    static_cast<std::uint16_t*>(args.scales)[at] = static_cast<std::uint16_t>(s.bits);
  }
  if (args.zeros != nullptr) args.zeros[at] = static_cast<std::uint8_t>(s.zero);
}

}  // namespace nibble::cuda
