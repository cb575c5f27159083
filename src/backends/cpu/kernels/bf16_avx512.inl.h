// Products of pairs of bf16 in 16 lanes. Included inside an anonymous namespace of an ISA unit,
// after vec_avx512.inl.h.

using Pairs = __m512i;
constexpr std::int64_t kPairLanes = 16;

inline Pairs pload(const void* p) { return _mm512_loadu_si512(p); }
// `count` < 32 values of bf16, zeros behind them
inline Pairs pload_n(const void* p, std::int64_t count) {
  return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((std::uint64_t{1} << count) - 1), p);
}
inline void pstore(void* p, Pairs v) { _mm512_storeu_si512(p, v); }
inline Pairs pzero() { return _mm512_setzero_si512(); }
inline Pairs pbroadcast(const std::uint16_t* pair) {
  int bits;
  __builtin_memcpy(&bits, pair, sizeof(bits));
  return _mm512_set1_epi32(bits);
}
// Rounded to nearest even: 16 values, and 16 behind them.
inline Pairs pjoin(Vec low, Vec high) { return (Pairs)_mm512_cvtne2ps_pbh(high, low); }
// Rounded to nearest even: `even` becomes the low halves of the lanes, `odd` the high halves.
inline Pairs pnarrow(Vec even, Vec odd) {
  const Pairs halves = pjoin(even, odd);
  const Pairs places = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                        8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(places, halves);
}
// Pairs of neighbours in two rows of `count` values (16 at the most are taken): those of `low_row`
// in the low halves, those of `high_row` (null: zeros) in the high halves; zeros behind them.
inline Pairs pzip(const unsigned char* low_row, const unsigned char* high_row, std::int64_t count) {
  const __mmask16 mask = first(count < 0 ? 0 : count > kPairLanes ? kPairLanes : count);
  const Pairs low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, low_row));
  if (high_row == nullptr) return low;
  const Pairs high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, high_row));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
// acc + x[2p] * w[2p] + x[2p + 1] * w[2p + 1], in every lane
// (Not the intrinsic: GCC 12 copies each accumulator around it.)
inline Vec pdot(Vec acc, Pairs x, Pairs w) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
  return acc;
}
