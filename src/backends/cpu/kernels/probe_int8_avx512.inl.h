// The byte products of VNNI, which the level itself does not ask for: only call it when the machine
// has them. Operations: 2 * 64 * kChains a round. Included inside an anonymous namespace of an ISA
// unit.

__attribute__((target("avx512vnni"))) std::int64_t probe_int8(std::int64_t rounds) {
  __m512i acc[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) acc[i] = _mm512_set1_epi32(i);
  const __m512i a = _mm512_set1_epi8(3);
  const __m512i b = _mm512_set1_epi8(2);
  for (; rounds > 0; --rounds) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
  }
  std::int64_t sum = 0;
  for (int i = 0; i < kChains; ++i) sum += _mm512_reduce_add_epi32(acc[i]);
  return sum;
}
