// Queries of the decode kernel on their way to fragments: first asked for, then, with keys on the
// way, rounded.
#pragma once

#include "backends/cuda/device/decode_warp.cuh"
#include "backends/cuda/device/decode_work.cuh"

namespace nibble::cuda {

// The queries of a lane's fragments: of each row tile and 16 elements the two of its first register
// and the two of its second.
template <class Warp>
struct Queries {
  float values[Warp::kRowTiles][Warp::kDim / 16][4];
};

template <KvType kType, class Shape, class Warp>
__device__ void fetch_queries(const DecodeLaunch& launch, const DeviceSequence& sequence,
                              const BlockWork& work, Queries<Warp>* queries) {
  const AttentionLaunch& args = launch.args;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  constexpr int kProducts = Shape::kKeyElements / 4;
#pragma unroll
  for (int t = 0; t < Warp::kRowTiles; ++t) {
    const int mine = 8 * t + lane / 4;
    const Pair pair = pair_of(launch, work.first_row + mine);
    const float* q = args.q + (sequence.q_begin + pair.t) * args.q_row_stride +
                     (work.kv_head * launch.group + pair.head) * args.q_head_stride;
#pragma unroll
    for (int s = 0; s < Warp::kDim / 16; ++s) {
      auto& to = queries->values[t][s];
      const int start = Shape::key_piece(s / kProducts, lane % 4) * Shape::kKeyElements +
                        pair_element<kType>(s % kProducts * 2, false);
      const bool exists = mine < work.rows && start < args.head_dim;
      if constexpr (kType == KvType::kInt4) {
        const float2 a = exists ? *reinterpret_cast<const float2*>(q + start) : float2{};
        const float2 b = exists ? *reinterpret_cast<const float2*>(q + start + 4) : float2{};
        to[0] = a.x;
        to[1] = b.x;
        to[2] = a.y;
        to[3] = b.y;
      } else {
        const float4 x = exists ? *reinterpret_cast<const float4*>(q + start) : float4{};
        to[0] = x.x;
        to[1] = x.y;
        to[2] = x.z;
        to[3] = x.w;
      }
    }
  }
}

// Rounds the queries of a row tile to fragments.
template <class Shape, class Warp>
__device__ void round_queries(const float (&values)[Warp::kDim / 16][4], int t, float scale,
                              Warp* warp) {
  constexpr int kSteps = Warp::kDim / 16;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float unit = 1;  // a power of two that brings f16 queries to below 2
  if constexpr (Shape::Traits::kF16) {
    float largest = 0;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(values[s][i]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    unit = __uint_as_float(max(__float_as_uint(largest) & 0x7f800000u, 0x00800000u));
  }
  const float inverse = 1 / unit;
  float sum = 0;
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t pair =
          Shape::Pairs::pack(values[s][2 * i] * inverse, values[s][2 * i + 1] * inverse);
      const float2 rounded = Shape::Pairs::unpack(pair);
      warp->queries[s][t][i] = pair;
      sum += rounded.x + rounded.y;
    }
  }
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int column = lane % 4 * 2 + i;
    warp->columns[t][i].query_sum = __shfl_sync(0xffffffffu, sum, 4 * column);
    warp->columns[t][i].scale = scale * __shfl_sync(0xffffffffu, unit, 4 * column);
  }
}

// What the warp must know of its columns' rows besides their queries.
template <class Warp>
__device__ void describe_columns(const DecodeLaunch& launch, const DeviceSequence& sequence,
                                 const BlockWork& work, Warp* warp) {
  const AttentionLaunch& args = launch.args;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int t = 0; t < Warp::kRowTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int mine = 8 * t + lane % 4 * 2 + i;
      const Pair pair = pair_of(launch, work.first_row + mine);
      const bool exists = mine < work.rows;
      const KeyRange keys = visible_keys(args, sequence, pair.t);
      DecodeColumn& to = warp->columns[t][i];
      to.begin = exists ? keys.begin : 0;
      to.end = exists ? keys.end : 0;
      to.slope = exists && args.alibi_slopes != nullptr
                     ? args.alibi_slopes[work.kv_head * launch.group + pair.head] * kLog2E
                     : 0;
    }
  }
}

}  // namespace nibble::cuda
