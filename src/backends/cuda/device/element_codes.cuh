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

// Of scales that are neither large nor small what a quotient's remainder loses is far below the
// smallest value of a type, and far below half a step of integers.
struct ScaleSteps {
  float scale;
  float inverse;
  bool plain;  // by that inverse

  static __device__ __forceinline__ ScaleSteps of(const StoredScale& s) {
    constexpr float kLeast = 0x1p-40f, kMost = 0x1p40f;
    return {s.value, __frcp_rn(s.value), s.value >= kLeast && s.value <= kMost};
  }
  __device__ __forceinline__ StepPair operator()(float a, float b) const {
    if (plain) return {{quotient(a, scale, inverse), quotient(b, scale, inverse)}, {a, b}};
    if (!(scale > 0)) return {};
    return {{__fdiv_rn(a, scale), __fdiv_rn(b, scale)}, {a, b}};
  }
};

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
  FloatRounding r;
  unsigned to_magic;     // from a power of two to the number to add, in exponents
  unsigned least_magic;  // of the smallest normal number, as bits
  int shift;

  static __device__ __forceinline__ RoundedCodes load(const EncodeWeight& args, Shared&) {
    const int shift = 23 - args.rounding.mantissa;
    const unsigned to_magic = static_cast<unsigned>(shift) << 23;
    return {args.rounding, to_magic, __float_as_uint(args.rounding.smallest_normal) + to_magic,
            shift};
  }
  __device__ __forceinline__ unsigned pair(const StepPair& steps, int /*zero*/) const {
    const Rounded a = rounded(steps.x[0]);
    const Rounded b = rounded(steps.x[1]);
    const unsigned codes = a.code + (b.code << 16);
    unsigned signs = high_halves(steps.w[0], steps.w[1]);
    if (!r.signed_zero) signs &= codes + 0x7fff7fffu;
    const int bits_above = __clz(static_cast<int>(r.sign)) - 16;
    return codes | ((signs >> bits_above) & (r.sign * 0x10001u));
  }
  // About how far a weight is from what it becomes: to a few 2^-22 of the weight.
  __device__ __forceinline__ float rough_error(float w, float scale, float inverse) const {
    return __fmaf_rn(rounded(w * inverse).value(), scale, -fabsf(w));
  }

 private:
  struct Rounded {
    float sum;
    float magic;
    unsigned code;
    __device__ __forceinline__ float value() const { return __fsub_rn(sum, magic); }
  };
  __device__ __forceinline__ Rounded rounded(float step) const {
    const float magnitude = fminf(fabsf(step), r.top);
    const unsigned power = __float_as_uint(magnitude) & 0x7f800000u;
    const unsigned magic = __viaddmax_u32(power, to_magic, least_magic);
    const float sum = __fadd_rn(magnitude, __uint_as_float(magic));
    const unsigned above = (magic - least_magic) >> shift;
    return {sum, __uint_as_float(magic), __float_as_uint(sum) - magic + above};
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
