// The byte products of AVX2: pairs to 16 bits, pairs of those to 32 bits, then an addition.
// Operations: 2 * 32 * kChains a round. Included inside an anonymous namespace of an ISA unit.

std::int64_t probe_int8(std::int64_t rounds) {
  __m256i acc[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) acc[i] = _mm256_set1_epi8(static_cast<char>(i));
  const __m256i ones = _mm256_set1_epi16(1);
  for (; rounds > 0; --rounds) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      const __m256i pairs = _mm256_maddubs_epi16(acc[i], ones);
      acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(pairs, ones));
    }
  }
  std::int64_t sum = 0;
  for (int i = 0; i < kChains; ++i) sum += _mm256_extract_epi32(acc[i], 0);
  return sum;
}
