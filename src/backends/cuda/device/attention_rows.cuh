// Which keys a query row sees, and what a product of query and key becomes (AttentionArgs of
// ops/args.h).
#pragma once

#include "backends/cuda/kernels/attention_args.h"

namespace nibble::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;

// Keys [begin, end), both within [0, kv_rows].
struct KeyRange {
  int begin;
  int end;
};

// The keys that row t of a sequence sees; begin >= end when there is none. All positions are below
// 2^30.
__device__ inline KeyRange visible_keys(const AttentionLaunch& args, const DeviceSequence& sequence,
                                        int t) {
  const auto kv_rows = static_cast<int>(sequence.kv_rows);
  const int position = static_cast<int>(sequence.q_offset) + t;
  const bool window = args.window > 0 && args.window <= position;
  const int begin = window ? position + 1 - static_cast<int>(args.window) : 0;
  const int end = args.causal ? min(kv_rows, position + 1) : kv_rows;
  return {min(begin, kv_rows), max(end, 0)};
}

// The keys that any of the rows [first, last] sees.
__device__ inline KeyRange visible_keys(const AttentionLaunch& args, const DeviceSequence& sequence,
                                        int first, int last) {
  return {visible_keys(args, sequence, first).begin, visible_keys(args, sequence, last).end};
}

// 2^x by the hardware; 0 for x = -infinity and below the normal numbers.
__device__ __forceinline__ float power_of_2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// softcap * tanh(x / softcap) by the hardware's exponential: within 1e-6 * softcap.
__device__ inline float capped(float x, float softcap, float inverse_softcap) {
  const float e = power_of_2(2 * kLog2E * inverse_softcap * x);
  return softcap - __fdividef(2 * softcap, e + 1);
}

}  // namespace nibble::cuda
