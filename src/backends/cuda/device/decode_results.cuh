// What the warps of the decode kernel have summed, added up: those of a block, then those of the
// blocks that shared the keys of a head. Always in the same order.
#pragma once

#include "backends/cuda/device/attention_result.cuh"
#include "backends/cuda/device/decode_work.cuh"

namespace nibble::cuda {

// A warp's results in shared memory: sums [kRows, kDim], largest [kRows], weight [kRows].
template <class Shape, class Warp>
__device__ void store_warp(const Warp& warp, float* to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int t = 0; t < Warp::kRowTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = 8 * t + lane % 4 * 2 + i;
#pragma unroll
      for (int m = 0; m < Warp::kDim / 16; ++m) {
        *reinterpret_cast<float2*>(to + row * Warp::kDim + warp.element(m)) =
            make_float2(warp.sums[m][t][i], warp.sums[m][t][i + 2]);
      }
      if (lane / 4 == 0) {
        to[Shape::kRows * Warp::kDim + row] = warp.largest[t][i];
        to[Shape::kRows * (Warp::kDim + 1) + row] = warp.weight[t][i];
      }
    }
  }
}

// Results of the warps of this block, and of other blocks: those must not come from the L1 cache.
struct OwnResults {
  template <class T>
  __device__ static T load(const T* from) {
    return *from;
  }
};
struct OthersResults {
  template <class T>
  __device__ static T load(const T* from) {
    return __ldcg(from);
  }
};

// Adds up `count` results of one row (results lie `stride` floats apart) as a warp: this lane's
// columns 4 * lane + 128 * j, the row's largest score and its weight.
template <class Shape, int kDim, class Source, int kBatch>
struct RowSum {
  static constexpr int kVectors = (kDim + 127) / 128;
  float4 sums[kVectors] = {};
  float largest = -INFINITY;
  float weight = 0;

  // All loads of a batch are under way before the first is needed: the results of other blocks come
  // from the L2 cache.
  __device__ void add_up(const float* results, int count, std::int64_t stride, int row) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const float* tops = results + Shape::kRows * kDim + row;
    const float* from = results + row * kDim + 4 * lane;
    for (int first = 0; first < count; first += kBatch) {
      const int mine = first + lane % kBatch;
      const bool exists = mine < count;
      const float top = exists ? Source::load(tops + mine * stride) : -INFINITY;
      const float part = exists ? Source::load(tops + mine * stride + Shape::kRows) : 0;
      float4 x[kBatch][kVectors];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
#pragma unroll
        for (int j = 0; j < kVectors; ++j) {
          const bool inside = first + i < count && 128 * j + 4 * lane < kDim;
          const float* at = from + (first + i) * stride + 128 * j;
          x[i][j] = inside ? Source::load(reinterpret_cast<const float4*>(at)) : float4{};
        }
      }
      float most = fmaxf(largest, top);
#pragma unroll
      for (int lanes = 1; lanes < kBatch; lanes *= 2) {
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, lanes));
      }
      const float base = most == -INFINITY ? 0 : most;
      const float before = power_of_2(largest - base);
      const float factor = power_of_2(top - base);
      largest = most;
      float more = factor * part;
#pragma unroll
      for (int lanes = 1; lanes < kBatch; lanes *= 2) {
        more += __shfl_xor_sync(0xffffffffu, more, lanes);
      }
      weight = fmaf(weight, before, more);
#pragma unroll
      for (int j = 0; j < kVectors; ++j) {
        float4 sum = sums[j];
        sum = {sum.x * before, sum.y * before, sum.z * before, sum.w * before};
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          const float f = __shfl_sync(0xffffffffu, factor, i);
          sum.x = fmaf(f, x[i][j].x, sum.x);
          sum.y = fmaf(f, x[i][j].y, sum.y);
          sum.z = fmaf(f, x[i][j].z, sum.z);
          sum.w = fmaf(f, x[i][j].w, sum.w);
        }
        sums[j] = sum;
      }
    }
  }
};

// Adds up results row by row, a warp a row, and writes them as rows of `out`.
template <class Shape, int kDim, class Source, int kBatch>
__device__ void write_rows(const DecodeLaunch& launch, const DeviceSequence& sequence,
                           const BlockWork& work, const float* results, int count,
                           std::int64_t stride) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int row = static_cast<int>(threadIdx.x) / 32; row < work.rows; row += kDecodeWarps) {
    RowSum<Shape, kDim, Source, kBatch> sum;
    sum.add_up(results, count, stride, row);
    const Pair pair = pair_of(launch, work.first_row + row);
    const std::int64_t head = work.kv_head * launch.group + pair.head;
    const ResultRow out(launch.args, sequence.q_begin + pair.t, head);
    const float inverse = sum.largest == -INFINITY ? 0 : 1 / sum.weight;
#pragma unroll
    for (int j = 0; j < sum.kVectors; ++j) {
      const int d = 128 * j + 4 * lane;
      if (d >= launch.args.head_dim) continue;
      const float4 x = sum.sums[j];
      out.store(d, x.x * inverse, x.y * inverse);
      out.store(d + 2, x.z * inverse, x.w * inverse);
    }
  }
}

// The same, to this block's place among the partial results.
template <class Shape, int kDim>
__device__ void write_partial(const BlockWork& work, const float* results, float* to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int row = static_cast<int>(threadIdx.x) / 32; row < work.rows; row += kDecodeWarps) {
    RowSum<Shape, kDim, OwnResults, kDecodeWarps> sum;
    sum.add_up(results, kDecodeWarps, Shape::kResultFloats, row);
#pragma unroll
    for (int j = 0; j < sum.kVectors; ++j) {
      const int d = 128 * j + 4 * lane;
      if (d < kDim) __stcg(reinterpret_cast<float4*>(to + row * kDim + d), sum.sums[j]);
    }
    if (lane == 0) {
      __stcg(to + Shape::kRows * kDim + row, sum.largest);
      __stcg(to + Shape::kRows * (kDim + 1) + row, sum.weight);
    }
  }
}

}  // namespace nibble::cuda
