// Eight neighbouring codes of a row, and their values: what kernels that walk a weight on its
// canonical planes read at a time.
#pragma once

#include "backends/cuda/device/weight_element.cuh"

namespace nibble::cuda {

inline constexpr int kCodeColumns = 8;  // whole bytes of codes

// Eight codes of a row from column `col` on, a multiple of eight; kBits 0: of any width.
template <int kBits>
struct CodeWords {
  unsigned long long codes;
  int bits;

  static __device__ __forceinline__ CodeWords load(const unsigned* row, unsigned col, int bits) {
    const unsigned first_bit = col * static_cast<unsigned>(bits);
    const unsigned* const words = row + first_bit / 32;
    const unsigned shift = first_bit % 32;
    const unsigned end = shift + kCodeColumns * static_cast<unsigned>(bits);
    const unsigned first = words[0];
    const unsigned second = end > 32 ? words[1] : 0;
    const unsigned third = end > 64 ? words[2] : 0;
    const unsigned low = __funnelshift_r(first, second, shift);
    const unsigned high = __funnelshift_r(second, third, shift);
    return {static_cast<unsigned long long>(high) << 32 | low, bits};
  }
  __device__ __forceinline__ unsigned code(int i) const {
    return static_cast<unsigned>(codes >> (i * bits)) & ((1u << bits) - 1);
  }
};

template <>
struct CodeWords<4> {
  unsigned word;

  static __device__ __forceinline__ CodeWords load(const unsigned* row, unsigned col, int) {
    return {row[col / 8]};
  }
  // Four from `col` on, and four from eight columns behind it.
  static __device__ __forceinline__ CodeWords load_runs(const unsigned* row, unsigned col) {
    const auto* const halves = reinterpret_cast<const std::uint16_t*>(row) + col / 4;
    return {halves[0] | unsigned{halves[2]} << 16};
  }
  __device__ __forceinline__ unsigned code(int i) const { return word >> (4 * i) & 15; }
};

template <>
struct CodeWords<8> {
  unsigned words[2];

  static __device__ __forceinline__ CodeWords load(const unsigned* row, unsigned col, int) {
    return {{row[col / 4], row[col / 4 + 1]}};
  }
  static __device__ __forceinline__ CodeWords load_runs(const unsigned* row, unsigned col) {
    return {{row[col / 4], row[col / 4 + 2]}};
  }
  __device__ __forceinline__ unsigned code(int i) const {
    return words[i / 4] >> (8 * (i % 4)) & 255;
  }
};

// Codes less a zero point. A code in the low bits of 0x4b000000 is the float 2^23 + code, so the
// difference is exact.
struct IntegerValues {
  static constexpr bool kTable = false;
  static constexpr unsigned kMagic = 0x4b000000u;
  float biased_zero;

  static __device__ __forceinline__ IntegerValues with_zero(unsigned zero) {
    return {__uint_as_float(kMagic | zero)};
  }
  __device__ __forceinline__ float operator()(unsigned code) const {
    return __uint_as_float(kMagic | code) - biased_zero;
  }
};

// Codes into a table in shared memory, of which a lane has every kCopies-th float.
template <int kCopies>
struct TableLookup {
  const float* table;

  __device__ __forceinline__ float operator()(unsigned code) const { return table[code * kCopies]; }
};

struct TableValues {
  static constexpr bool kTable = true;
};

// What a block of threads looks values up in; none of them may have gone yet. Lanes that ask for
// different values of a table of 256 would meet in one bank: so there are copies, each in banks of
// its own.
template <class Values, int kBits>
struct SharedTable {
  static constexpr int kCopies = kBits == 4 ? 1 : 8;
  static constexpr int kFloats = Values::kTable ? kCopies * (kBits == 4 ? 16 : 256) : 1;
  const float* table;

  static __device__ __forceinline__ SharedTable load(const WeightPlanes& w, float* shared) {
    if constexpr (Values::kTable) {
      for (int i = threadIdx.x; i < kCopies << w.bits; i += blockDim.x) {
        shared[i] = w.values[i / kCopies];
      }
      __syncthreads();
    }
    return {shared};
  }
  __device__ __forceinline__ auto values(unsigned zero) const {
    if constexpr (Values::kTable) {
      return TableLookup<kCopies>{table + threadIdx.x % kCopies};
    } else {
      return Values::with_zero(zero);
    }
  }
};

__device__ __forceinline__ unsigned load_zero(const WeightPlanes& w, std::int64_t at) {
  return w.zeros == nullptr ? 1u << (w.bits - 1) : w.zeros[at];
}

// Whether eight columns share a scale. Their bits are counted in 32.
inline bool has_code_columns(const WeightPlanes& w) {
  constexpr std::int64_t kMostColumns = std::int64_t{1} << 28;
  return w.bits > 0 && w.cols % kCodeColumns == 0 && w.group % kCodeColumns == 0 &&
         w.cols <= kMostColumns;
}

}  // namespace nibble::cuda
