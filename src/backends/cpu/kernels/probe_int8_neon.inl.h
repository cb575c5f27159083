// The byte products of ARMv8.2, which the level itself does not ask for: only call it when the
// machine has them. Operations: 2 * 32 * kChains a round. Included inside an anonymous namespace of
// an ISA unit.

__attribute__((target("arch=armv8.2-a+dotprod"))) std::int64_t probe_int8(std::int64_t rounds) {
  constexpr int kSums = 2 * kChains;
  int32x4_t acc[kSums];
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) acc[i] = vdupq_n_s32(i);
  const int8x16_t a = vdupq_n_s8(3);
  const int8x16_t b = vdupq_n_s8(2);
  for (; rounds > 0; --rounds) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) acc[i] = vdotq_s32(acc[i], a, b);
  }
  std::int64_t sum = 0;
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) sum += vaddvq_s32(acc[i]);
  return sum;
}
