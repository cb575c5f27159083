// Byte products of 8 lanes. Sums of two products are kept in 16 bits on the way, which weights of
// up to 5 bits cannot overflow. Included inside an anonymous namespace of an ISA unit, after
// vec_avx2.inl.h; see bytes_avx512.inl.h for the meaning of each function.

using Ints = __m256i;
constexpr int kTileRows = 2;  // with kNv vectors of sums and of results in registers
constexpr std::int64_t kPrefetch = 4096;
constexpr unsigned char kByteShift = 0;  // what store_bytes subtracts
constexpr bool kWholeBytes = false;
constexpr bool kUnsignedBytes = false;

inline Ints izero() { return _mm256_setzero_si256(); }
inline Ints iload(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void istore(void* p, Ints v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
inline Ints iset8(int v) { return _mm256_set1_epi8(static_cast<char>(v)); }
inline Ints iset32(int v) { return _mm256_set1_epi32(v); }
inline Ints isub8(Ints a, Ints b) { return _mm256_sub_epi8(a, b); }
inline Ints iand(Ints a, Ints b) { return _mm256_and_si256(a, b); }
inline Ints ior(Ints a, Ints b) { return _mm256_or_si256(a, b); }
inline Ints ishift4(Ints a) { return _mm256_srli_epi32(a, 4); }
inline Ints imoved(Ints a, int bits) {
  return bits > 0 ? _mm256_slli_epi32(a, bits) : _mm256_srli_epi32(a, -bits);
}
inline Ints ilookup(Ints table, Ints indices) { return _mm256_shuffle_epi8(table, indices); }
inline Ints ibroadcast4(const void* p) {
  int v;
  __builtin_memcpy(&v, p, sizeof(v));
  return _mm256_set1_epi32(v);
}
inline Ints idot(Ints acc, Ints x, Ints w) {
  const Ints pairs = _mm256_maddubs_epi16(x, w);
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline Ints iadd(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Vec ifloat(Ints a) { return _mm256_cvtepi32_ps(a); }
inline Ints ispread(const signed char* p) {
  const Ints wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return _mm256_shuffle_epi8(wide, _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0,
                                                     0x04040404, 0x08080808, 0x0c0c0c0c));
}
inline Vec ifloat8(const signed char* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
