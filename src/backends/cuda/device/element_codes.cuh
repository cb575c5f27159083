// Codes of single weights under a scale, with the bits of SpanKernels::affine_codes() and
// table_codes() (formats/span_kernels.h).
#pragma once

#include "backends/cuda/device/group_scale.cuh"

namespace nibble::cuda {

// Weights in steps of a scale: w / scale, or 0 under a scale that is not positive. Of scales that
// are neither large nor small what a quotient's remainder loses is far below the smallest value of
// a type, and far below half a step of integers.
struct ScaleSteps {
  float scale;
  float inverse;
  bool plain;  // by that inverse

  static __device__ __forceinline__ ScaleSteps of(const StoredScale& s) {
    constexpr float kLeast = 0x1p-40f, kMost = 0x1p40f;
    return {s.value, __frcp_rn(s.value), s.value >= kLeast && s.value <= kMost};
  }
  __device__ __forceinline__ float operator()(float w) const {
    if (plain) return copysignf(quotient(w, scale, inverse), w);  // -0 stays what it is
    return scale > 0 ? __fdiv_rn(w, scale) : 0.0f;
  }
};

struct IntegerCodes {
  static constexpr bool kTable = false;
  int top;

  static __device__ __forceinline__ IntegerCodes load(const EncodeWeight& args, BoundTable&) {
    return {(1 << args.bits) - 1};
  }
  __device__ __forceinline__ unsigned code(float steps, int zero) const {
    const float low = static_cast<float>(-zero);
    const float high = static_cast<float>(top - zero);
    return static_cast<unsigned>(__float2int_rn(fminf(fmaxf(steps, low), high)) + zero);
  }
};

// Small floats, on the bits of float32: FloatRounding.
struct RoundedCodes {
  static constexpr bool kTable = true;
  FloatRounding r;

  static __device__ __forceinline__ RoundedCodes load(const EncodeWeight& args, BoundTable&) {
    return {args.rounding};
  }
  __device__ __forceinline__ unsigned code(float x, int /*zero*/) const {
    const float magnitude = fminf(fabsf(x), r.top);
    const int shift = 23 - r.mantissa;
    const unsigned normal = __float_as_uint(magnitude) - r.rebias;
    const unsigned rounded = (normal + (1u << (shift - 1)) - 1 + (normal >> shift & 1)) >> shift;
    const unsigned small =
        __float_as_uint(__fadd_rn(magnitude, r.magic)) - __float_as_uint(r.magic);
    const unsigned code = magnitude >= r.smallest_normal ? rounded : small;
    const bool negative = signbit(x) && (code != 0 || r.signed_zero);
    return negative ? code | r.sign : code;
  }
};

// Any table of 1 << kDepth bounds, or (0) of as many as it says.
template <int kDepth>
struct BoundCodes {
  static constexpr bool kTable = true;
  const BoundTable* table;
  float middle;  // the bounds of the first two comparisons, in registers
  float quarters[2];
  int leaves;
  int zero_rank;
  unsigned negative_zero;

  // All threads of a block call it.
  static __device__ __forceinline__ BoundCodes load(const EncodeWeight& args, BoundTable& shared) {
    const BoundTable& table = args.table;
    for (int i = threadIdx.x; i < table.leaves; i += blockDim.x) {
      shared.bounds[i] = table.bounds[i];
      shared.codes[i] = table.codes[i];
    }
    __syncthreads();
    const int half = table.leaves / 2;
    const int quarter = max(half / 2, 1);
    return {&shared,
            table.bounds[half - 1],
            {table.bounds[quarter - 1], table.bounds[half + quarter - 1]},
            table.leaves,
            table.zero_rank,
            table.negative_zero};
  }
  __device__ __forceinline__ unsigned code(float x, int /*zero*/) const {
    int rank = rank_of(x);
    return rank == zero_rank && signbit(x) ? negative_zero : table->codes[rank];
  }

 private:
  __device__ __forceinline__ int rank_of(float x) const {
    if constexpr (kDepth >= 2) {
      const bool upper = x > middle;
      int rank = upper ? 1 << (kDepth - 1) : 0;
      rank += x > (upper ? quarters[1] : quarters[0]) ? 1 << (kDepth - 2) : 0;
#pragma unroll
      for (int step = (1 << kDepth) / 8; step > 0; step /= 2) {
        rank += x > table->bounds[rank + step - 1] ? step : 0;
      }
      return rank;
    } else {
      int rank = 0;
      for (int step = leaves / 2; step > 0; step /= 2) {
        rank += x > table->bounds[rank + step - 1] ? step : 0;
      }
      return rank;
    }
  }
};

}  // namespace nibble::cuda
