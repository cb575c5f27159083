// The way of a row's numbers from registers into the form that a product reads
// (kernels/product_rows.h): the bits that rounding the float32 row would give.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "backends/cuda/device/block_reduce.cuh"
#include "backends/cuda/device/row_scale.cuh"
#include "backends/cuda/kernels/product_rows.h"

namespace nibble::cuda {

// Two numbers as 16 bits each, the first in the low half.
template <RowForm kForm>
__device__ __forceinline__ unsigned rounded_pair(float low, float high) {
  static_assert(kForm == RowForm::kBf16 || kForm == RowForm::kF16);
  if constexpr (kForm == RowForm::kF16) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&pair);
  }
}

// What two codes of e4m3 stand for, added up.
__device__ __forceinline__ float sum_of_codes(unsigned pair) {
  const __half2_raw halves =
      __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pair), __NV_E4M3);
  const float2 values = __half22float2(__half2(halves));
  return values.x + values.y;
}

// The group-th sum of a row's sums (kernels/fp8_rows.h).
__device__ __forceinline__ void store_code_sum(__nv_bfloat16* sums, int group, float sum) {
  const int half = kFp8SumGroups / 2;
  __nv_bfloat16* const at =
      sums + group / kFp8SumGroups * kFp8SumBox + group % kFp8SumGroups / half * kFp8SumGroups;
  const __nv_bfloat16 high = __float2bfloat16_rn(sum);
  at[group % half] = high;
  at[group % half + half] = __float2bfloat16_rn(sum - __bfloat162float(high));
}

// A row that a block of kThreads has in registers: vector v of a thread is the four columns from 4
// (v kThreads + thread) on, and is only there if these are below cols.
template <int kThreads, int kVectors>
class HeldRow {
 public:
  using Values = float4[kVectors];
  __device__ __forceinline__ HeldRow(std::int64_t row, std::int64_t cols)
      : row_(row), vectors_(static_cast<int>(cols / 4)) {}

  static __device__ __forceinline__ int at(int v) {
    return v * kThreads + static_cast<int>(threadIdx.x);
  }
  __device__ __forceinline__ bool has(int v) const { return at(v) < vectors_; }

  // y: rows y_stride apart, on 16 bytes.
  __device__ __forceinline__ void store(float* y, std::int64_t y_stride,
                                        const Values& values) const {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (has(v)) reinterpret_cast<float4*>(y + row_ * y_stride)[at(v)] = values[v];
    }
  }

  template <RowForm kForm>
  __device__ __forceinline__ void store(const ProductRows& to, const Values& values) const {
    if constexpr (kForm == RowForm::kInt8Codes) {
      store_codes<Int8Codes, false>(to, values);
    } else if constexpr (kForm == RowForm::kFp8 || kForm == RowForm::kFp8Codes) {
      store_codes<E4m3Codes, kForm == RowForm::kFp8>(to, values);
    } else {
      auto* const y = static_cast<uint2*>(to.values) + row_ * vectors_;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        if (!has(v)) continue;
        y[at(v)] = make_uint2(rounded_pair<kForm>(values[v].x, values[v].y),
                              rounded_pair<kForm>(values[v].z, values[v].w));
      }
    }
  }

 private:
  using Row = Team<kThreads, kThreads>;

  template <class Codes, bool kSums>
  __device__ __forceinline__ void store_codes(const ProductRows& to, const Values& values) const {
    float largest = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (!has(v)) continue;
      for (const float x : {values[v].x, values[v].y, values[v].z, values[v].w}) {
        largest = larger_magnitude(largest, x);
      }
    }
    const RowScale by = row_scale(Row::largest(largest), to.most);
    const Codes codes(by);
    auto* const words = static_cast<unsigned*>(to.values) + row_ * vectors_;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (!has(v)) continue;
      const unsigned low = by.zero ? 0 : codes.pair(values[v].x, values[v].y);
      const unsigned high = by.zero ? 0 : codes.pair(values[v].z, values[v].w);
      if constexpr (kSums) {
        words[place_of_word(at(v))] = exchanged(low | high << 16);
        add_up(to, v, low, high);
      } else {
        words[at(v)] = low | high << 16;
      }
    }
    if constexpr (kSums) clear_sums_behind(to);
    if (threadIdx.x == 0) to.scales[row_] = by.stored;
  }

  // A warp has 128 columns of a vector, all or none of them below cols.
  __device__ __forceinline__ void add_up(const ProductRows& to, int v, unsigned low,
                                         unsigned high) const {
    const float sum = warp_sum(sum_of_codes(low) + sum_of_codes(high));
    if (threadIdx.x % 32 == 0) store_code_sum(sums_of(to), at(v) / 32, sum);
  }
  __device__ __forceinline__ void clear_sums_behind(const ProductRows& to) const {
    const int group = vectors_ / 32 + static_cast<int>(threadIdx.x);
    if (group < boxes() * kFp8SumGroups) store_code_sum(sums_of(to), group, 0);
  }
  __device__ __forceinline__ int boxes() const {
    return (vectors_ / 32 + kFp8SumGroups - 1) / kFp8SumGroups;
  }
  __device__ __forceinline__ __nv_bfloat16* sums_of(const ProductRows& to) const {
    return static_cast<__nv_bfloat16*>(to.sums) + row_ * boxes() * kFp8SumBox;
  }

  // The order of kernels/fp8_rows.h exchanges columns of vectors that are two apart: of columns 4 q
  // to 4 q + 3 and those 8 behind them the first lane has one word, the second the next.
  static __device__ __forceinline__ unsigned exchanged(unsigned own) {
    const unsigned other = __shfl_xor_sync(~0u, own, 2);
    return threadIdx.x & 2 ? __byte_perm(other, own, 0x7362) : __byte_perm(own, other, 0x5140);
  }
  static __device__ __forceinline__ int place_of_word(int vector) {
    return (vector & ~3) + 2 * (vector & 1) + (vector >> 1 & 1);
  }

  std::int64_t row_;
  int vectors_;
};

}  // namespace nibble::cuda
