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

// The keys that row t of a sequence sees; begin >= end when there is none.
__device__ inline KeyRange visible_keys(const AttentionLaunch& args, const DeviceSequence& sequence,
                                        std::int64_t t) {
  const std::int64_t position = sequence.q_offset + t;
  const std::int64_t begin = args.window > 0 ? max(0L, position - args.window + 1) : 0L;
  const std::int64_t end = args.causal ? min(sequence.kv_rows, position + 1) : sequence.kv_rows;
  return {static_cast<int>(min(begin, sequence.kv_rows)), static_cast<int>(max(end, 0L))};
}

// The keys that any of the rows [first, last] sees.
__device__ inline KeyRange visible_keys(const AttentionLaunch& args, const DeviceSequence& sequence,
                                        std::int64_t first, std::int64_t last) {
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
