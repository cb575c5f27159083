// Codes of weights under a scale, with the bits of SpanKernels::affine_codes() and table_codes()
// (formats/span_kernels.h). Two at a time, one in each half of a word: what is packed, limited or
// signed is so at once for both.
#pragma once

#include "backends/cuda/device/group_scale.cuh"

namespace nibble::cuda {

// Two weights in steps of a scale: w / scale, or 0 under a scale that is not positive. The sign of
// a step that is 0 is that of `w`.
struct StepPair {
  float x[2];
  float w[2];
};

// By the scale's inverse.
struct QuickSteps {
  float scale;
  float inverse;

  __device__ __forceinline__ StepPair operator()(float a, float b) const {
    return {{quotient(a, scale, inverse), quotient(b, scale, inverse)}, {a, b}};
  }
};

// By divisions.
struct DividedSteps {
  float scale;

  __device__ __forceinline__ StepPair operator()(float a, float b) const {
    if (!(scale > 0)) return {};
    return {{divide(a), divide(b)}, {a, b}};
  }

 private:
  __device__ __noinline__ float divide(float w) const { return __fdiv_rn(w, scale); }
};

// Calls `encode` with the steps of a scale: the branch is around all that it does, for many weights
// at a time. Of scales that are neither large nor small what a quotient's remainder loses is far
// below the smallest value of a type, and far below half a step of integers.
template <class Encode>
__device__ __forceinline__ void with_steps(float scale, const Encode& encode) {
  if (scale >= 0x1p-40f && scale <= 0x1p40f) {
    encode(QuickSteps{scale, __frcp_rn(scale)});
  } else {
    encode(DividedSteps{scale});
  }
}

// The low halves of two words.
__device__ __forceinline__ unsigned low_halves(unsigned a, unsigned b) {
  return __byte_perm(a, b, 0x5410);
}
__device__ __forceinline__ unsigned high_halves(float a, float b) {
  return __byte_perm(__float_as_uint(a), __float_as_uint(b), 0x7632);
}

struct NoTable {};

struct IntegerCodes {
  using Range = SignedRange;
  using Shared = NoTable;
  static constexpr bool kTable = false;
  static constexpr bool kChoice = false;  // of two scales
  unsigned top;                           // in both halves

  static __device__ __forceinline__ IntegerCodes load(const EncodeWeight& args, Shared&) {
    return {((1u << args.bits) - 1) * 0x10001u};
  }
  // Scales are those of the range of the weights: steps are within 16 bits.
  __device__ __forceinline__ unsigned pair(const StepPair& steps, int zero) const {
    constexpr float kMagic = 0x1.8p23f;  // its last bit is 1, its low half is 0
    const unsigned rounded = low_halves(__float_as_uint(__fadd_rn(steps.x[0], kMagic)),
                                        __float_as_uint(__fadd_rn(steps.x[1], kMagic)));
    return __viaddmin_s16x2_relu(rounded, static_cast<unsigned>(zero) * 0x10001u, top);
  }
};

// Small floats with a mantissa: FloatRounding. A magnitude becomes a multiple of the last place of
// its power of two when a number that has its last bit there is added.
struct RoundedCodes {
  using Range = Magnitude;
  using Shared = NoTable;
  static constexpr bool kTable = true;
  static constexpr bool kChoice = true;
  static constexpr bool kRough = true;  // errors in float32
  float top;
  unsigned to_magic;     // from a power of two to the number to add, in exponents
  unsigned least_magic;  // of the smallest normal number, as bits
  // Of a pair, in both halves: how far exponents of magic numbers move down to be those of codes,
  // that of the least one there, the sign of a code and how far that of a weight is above it.
  int exponents_above;
  unsigned least_exponent;
  unsigned sign;
  int sign_above;
  unsigned signed_zero;  // all bits, or none

  static __device__ __forceinline__ RoundedCodes load(const EncodeWeight& args, Shared&) {
    const FloatRounding& r = args.rounding;
    const unsigned least_magic = __float_as_uint(r.magic);
    const int exponents_above = 7 - r.mantissa;
    return {.top = r.top,
            .to_magic = least_magic - __float_as_uint(r.smallest_normal),
            .least_magic = least_magic,
            .exponents_above = exponents_above,
            .least_exponent = high_halves(r.magic, r.magic) >> exponents_above,
            .sign = r.sign * 0x10001u,
            .sign_above = __clz(static_cast<int>(r.sign)) - 16,
            .signed_zero = r.signed_zero ? ~0u : 0u};
  }
  __device__ __forceinline__ unsigned pair(const StepPair& steps, int /*zero*/) const {
    const Rounded a = rounded(steps.x[0]);
    const Rounded b = rounded(steps.x[1]);
    const unsigned exponents = high_halves(a.magic, b.magic) >> exponents_above;
    const unsigned codes =
        low_halves(__float_as_uint(a.sum), __float_as_uint(b.sum)) + exponents - least_exponent;
    const unsigned signs =
        high_halves(steps.w[0], steps.w[1]) & ((codes + 0x7fff7fffu) | signed_zero);
    return codes | ((signs >> sign_above) & sign);
  }
  // About how far a weight is from what it becomes: to a few 2^-22 of the weight.
  __device__ __forceinline__ float rough_error(float w, float scale, float inverse) const {
    return __fmaf_rn(rounded(w * inverse).value(), scale, -fabsf(w));
  }

 private:
  // A magnitude and the number added to it, whose low half is 0.
  struct Rounded {
    float sum;
    float magic;
    __device__ __forceinline__ float value() const { return __fsub_rn(sum, magic); }
  };
  __device__ __forceinline__ Rounded rounded(float step) const {
    const float magnitude = fminf(fabsf(step), top);
    const unsigned power = __float_as_uint(magnitude) & 0x7f800000u;
    const float magic = __uint_as_float(__viaddmax_u32(power, to_magic, least_magic));
    return {__fadd_rn(magnitude, magic), magic};
  }
};

// Tables of 16 values by BoundGrid, a copy of it for each lane: none waits for another's bank.
struct GridCodes {
  using Range = Magnitude;
  struct Shared {
    uint2 cells[BoundGrid::kCells][32];  // bound, codes
  };
  static constexpr bool kTable = true;
  static constexpr bool kChoice = false;
  const char* lane;  // its column of the grid
  float to_cells;

  // All threads of a block call it.
  static __device__ __forceinline__ GridCodes load(const EncodeWeight& args, Shared& shared) {
    const BoundGrid& grid = args.grid;
    const unsigned lane = threadIdx.x % 32;
    for (unsigned cell = threadIdx.x / 32; cell < BoundGrid::kCells; cell += blockDim.x / 32) {
      shared.cells[cell][lane] = make_uint2(__float_as_uint(grid.bounds[cell]), grid.codes[cell]);
    }
    __syncthreads();
    return {reinterpret_cast<const char*>(&shared.cells[0][lane]), grid.to_cells};
  }
  __device__ __forceinline__ unsigned pair(const StepPair& steps, int /*zero*/) const {
    return low_halves(code(steps.x[0]), code(steps.x[1]));
  }

 private:
  // In the low half.
  __device__ __forceinline__ unsigned code(float step) const {
    constexpr unsigned kFirst = 0x4b000000u;  // 2^23
    const unsigned cell = __float_as_uint(BoundGrid::place(step, to_cells)) - kFirst;
    const auto bound = *reinterpret_cast<const uint2*>(lane + cell * sizeof(Shared::cells[0]));
    return step > __uint_as_float(bound.x) ? bound.y >> 16 : bound.y;
  }
};

// Any table, by halving.
struct BoundCodes {
  using Range = Magnitude;
  using Shared = BoundTable;
  static constexpr bool kTable = true;
  static constexpr bool kChoice = true;
  static constexpr bool kRough = false;
  const BoundTable* table;
  int leaves;
  int zero_rank;
  unsigned negative_zero;

  // All threads of a block call it.
  static __device__ __forceinline__ BoundCodes load(const EncodeWeight& args, Shared& shared) {
    const BoundTable& table = args.table;
    for (int i = threadIdx.x; i < table.leaves; i += blockDim.x) {
      shared.bounds[i] = table.bounds[i];
      shared.codes[i] = table.codes[i];
    }
    __syncthreads();
    return {&shared, table.leaves, table.zero_rank, table.negative_zero};
  }
  __device__ __forceinline__ unsigned pair(const StepPair& steps, int /*zero*/) const {
    return code(steps.x[0], steps.w[0]) | (code(steps.x[1], steps.w[1]) << 16);
  }

 private:
  __device__ __forceinline__ unsigned code(float step, float w) const {
    int rank = 0;
    for (int half = leaves / 2; half > 0; half /= 2) {
      rank += step > table->bounds[rank + half - 1] ? half : 0;
    }
    return rank == zero_rank && signbit(w) ? negative_zero : table->codes[rank];
  }
};

}  // namespace nibble::cuda
