// The way of sums out of the registers of warpgroups (device/large_tile.cuh) to y: straight, or by
// a meeting in global memory of the blocks that split k. Each writes all its sums there; once all
// have, each adds up those of its share of the tokens, in the order of k.
#pragma once

#include "backends/cuda/device/large_tile.cuh"
#include "backends/cuda/device/silu.cuh"

namespace nibble::cuda {

#if __CUDA_ARCH__ >= 900

// A lane's sums of 8 tokens: of each block of rows, rows g and g + 8 of tokens 2c, 2c + 1.
template <int kBlocks>
using Piece = float[kBlocks][4];

// Loads and stores where `wanted`, without a branch: a tile has hundreds of them.
__device__ __forceinline__ float load_if(bool wanted, const float* y) {
  float value;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.u32 p, %2, 0;\n"
      "mov.f32 %0, 0f00000000;\n"
      "@p ld.global.f32 %0, [%1];\n"
      "}"
      : "=&f"(value)
      : "l"(y), "r"(static_cast<unsigned>(wanted))
      : "memory");
  return value;
}

__device__ __forceinline__ void store_if(bool wanted, float* y, float value) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.u32 p, %2, 0;\n"
      "@p st.global.f32 [%0], %1;\n"
      "}" ::"l"(y),
      "f"(value), "r"(static_cast<unsigned>(wanted))
      : "memory");
}

// The same, rounded.
__device__ __forceinline__ void store_if(bool wanted, __nv_bfloat16* y, float value) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      ".reg .b16 h;\n"
      "setp.ne.u32 p, %2, 0;\n"
      "cvt.rn.bf16.f32 h, %1;\n"
      "@p st.global.b16 [%0], h;\n"
      "}" ::"l"(y),
      "f"(value), "r"(static_cast<unsigned>(wanted))
      : "memory");
}

// Stores what a lane has of a tile, 8 tokens at a time. kScaled: x has scales, sums are of fp8.
template <int kBlocks, bool kScaled>
class Finisher {
 public:
  __device__ __forceinline__ Finisher(const LargeParams& p, const Tile& tile, const Lane& me)
      : p_(p), token_(tile.token + 2 * me.c()) {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      const LargePart& part = p.parts[tile.part + (p.silu_pair ? b : 0)];
      const int slot = p.silu_pair ? me.group : b * kLargeMultipliers + me.group;
      const int row = tile.row + 64 * slot + me.row();
      inside_[b] = row < part.rows;
      const bool biased = inside_[b] && part.bias != nullptr;
      bias_[b][0] = biased ? part.bias[row] : 0.0f;
      bias_[b][1] = biased ? part.bias[row + 8] : 0.0f;
      y_[b] = part.y + token_ * part.y_stride + row;
      stride_ = part.y_stride;
    }
    const LargePart& first = p.parts[0];
    const std::int64_t at = std::int64_t{token_} * first.rows + tile.row + 64 * me.group + me.row();
    rounded_y_ = p.rounded_y == nullptr ? nullptr : p.rounded_y + at;
    rounded_stride_ = first.rows;
  }

  // Tokens 8 * piece and on. kPair: as in p.silu_pair.
  template <bool kPair>
  __device__ __forceinline__ void store(const Piece<kBlocks>& sums, int piece) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = token_ + 8 * piece + i;
      const bool wanted = token < p_.m;
      const float scale = kScaled ? kFp8SumUnit * p_.x_scales[min(token, p_.m - 1)] : 1.0f;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float values[kBlocks];
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) {
          values[b] = scale * sums[b][2 * half + i] + bias_[b][half];
        }
        if (kPair) values[0] = silu_times(values[0], values[kBlocks - 1]);
        if (kPair && rounded_y_ != nullptr) {
          store_if(wanted && inside_[0], rounded_y_ + (8 * piece + i) * rounded_stride_ + 8 * half,
                   values[0]);
          continue;
        }
#pragma unroll
        for (int b = 0; b < (kPair ? 1 : kBlocks); ++b) {
          float* const y = y_[b] + (8 * piece + i) * stride_ + 8 * half;
          const bool stores = wanted && inside_[b];
          if (!kPair) values[b] += load_if(stores && p_.accumulate, y);
          store_if(stores, y, values[b]);
        }
      }
    }
  }

 private:
  const LargeParams& p_;
  int token_;
  std::int64_t stride_;
  float* y_[kBlocks];         // of this lane's first row and token
  __nv_bfloat16* rounded_y_;  // likewise, of a pair; or null
  std::int64_t rounded_stride_;
  bool inside_[kBlocks];
  float bias_[kBlocks][2];
};

// All threads that multiply. Returns once `count` blocks have come to this counter, and what they
// wrote before is visible.
__device__ __forceinline__ void meet_blocks(unsigned* counter, unsigned count, int thread) {
  __threadfence();
  sync_threads_of(kSplitMeeting, 128 * kLargeMultipliers);
  if (thread == 0) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
    constexpr int kTries = 1 << 24;  // then trap rather than hang
    unsigned come = 0;
    for (int i = 0; i < kTries && come < count; ++i) {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(come) : "l"(counter) : "memory");
    }
    if (come < count) __trap();
  }
  sync_threads_of(kSplitMeeting, 128 * kLargeMultipliers);
}

// The last block that leaves clears the counters for the next launch.
__device__ __forceinline__ void leave_blocks(unsigned* counters, unsigned count) {
  if (atomicAdd(counters + 1, 1u) + 1 == count) {
    counters[0] = 0;
    counters[1] = 0;
  }
}

// Of a piece, what `split` blocks of threads wrote `stride` apart.
template <int kBlocks>
__device__ __forceinline__ void add_up(const float4* sums, int stride, int split,
                                       Piece<kBlocks>& total) {
  constexpr int kMostSplit = 8;
  float4 parts[kBlocks][kMostSplit];
#pragma unroll
  for (int s = 0; s < kMostSplit; ++s) {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      parts[b][s] = s < split ? __ldcg(sums + s * stride + b * 128 * kLargeMultipliers)
                              : make_float4(0, 0, 0, 0);
    }
  }
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
    float4 sum = parts[b][0];
#pragma unroll
    for (int s = 1; s < kMostSplit; ++s) {
      sum.x += parts[b][s].x;
      sum.y += parts[b][s].y;
      sum.z += parts[b][s].z;
      sum.w += parts[b][s].w;
    }
    total[b][0] = sum.x;
    total[b][1] = sum.y;
    total[b][2] = sum.z;
    total[b][3] = sum.w;
  }
}

template <int kBlocks, int kTokens, bool kScaled>
__device__ __forceinline__ void store_split(const LargeParams& p, const Place& place, int index,
                                            const Tile& tile, const Lane& me,
                                            const float (&d)[kBlocks][kTokens / 2]) {
  constexpr int kPieces = kTokens / 8;
  constexpr int kThreads = 128 * kLargeMultipliers;
  const int split = p.grid.split;
  const int rank = place.cluster % split;
  const int slot = (index - p.grid.whole) * p.grid.share + place.share_rank;
  const int of_block = kBlocks * kPieces * kThreads;  // sums of four
  float4* const sums = p.sums + std::int64_t{slot} * split * of_block + me.thread();
  float4* const mine = sums + rank * of_block;
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      __stcg(mine + (j * kBlocks + b) * kThreads,
             make_float4(d[b][4 * j], d[b][4 * j + 1], d[b][4 * j + 2], d[b][4 * j + 3]));
    }
  }
  unsigned* const counters = p.counters + 2 * slot;
  meet_blocks(counters, static_cast<unsigned>(split), me.thread());
  const Finisher<kBlocks, kScaled> finisher(p, tile, me);
  const int end = kPieces * (rank + 1) / split;
  for (int j = kPieces * rank / split; j < end; ++j) {
    Piece<kBlocks> total;
    add_up<kBlocks>(sums + j * kBlocks * kThreads, of_block, split, total);
    p.silu_pair ? finisher.template store<true>(total, j)
                : finisher.template store<false>(total, j);
  }
  if (me.thread() == 0) leave_blocks(counters, static_cast<unsigned>(split));
}

template <bool kPair, int kBlocks, int kSums, bool kScaled>
__device__ __forceinline__ void store_pieces(const Finisher<kBlocks, kScaled>& finisher,
                                             const float (&d)[kBlocks][kSums]) {
#pragma unroll
  for (int j = 0; j < kSums / 4; ++j) {
    Piece<kBlocks> piece;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int i = 0; i < 4; ++i) piece[b][i] = d[b][4 * j + i];
    }
    finisher.template store<kPair>(piece, j);
  }
}

template <int kBlocks, int kTokens, bool kScaled>
__device__ __forceinline__ void store_whole(const LargeParams& p, const Tile& tile, const Lane& me,
                                            const float (&d)[kBlocks][kTokens / 2]) {
  const Finisher<kBlocks, kScaled> finisher(p, tile, me);
  if (kBlocks == 2 && p.silu_pair) {
    store_pieces<true>(finisher, d);
  } else {
    store_pieces<false>(finisher, d);
  }
}

#endif

}  // namespace nibble::cuda
