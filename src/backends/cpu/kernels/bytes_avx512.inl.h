// Byte products of 16 lanes (VNNI). Included inside an anonymous namespace of an ISA unit, after
// vec_avx512.inl.h.

using Ints = __m512i;
constexpr int kTileRows = 6;  // with kNv vectors of sums and of results in registers
constexpr std::int64_t kPrefetch = 4096;
constexpr unsigned char kByteShift = 0;  // what store_bytes subtracts
constexpr bool kWholeBytes = true;       // products of all bytes fit
constexpr bool kUnsignedBytes = true;    // and one of them may be any unsigned one

inline Ints izero() { return _mm512_setzero_si512(); }
inline Ints iload(const void* p) { return _mm512_loadu_si512(p); }
inline void istore(void* p, Ints v) { _mm512_storeu_si512(p, v); }
inline Ints iset8(int v) { return _mm512_set1_epi8(static_cast<char>(v)); }
inline Ints iset32(int v) { return _mm512_set1_epi32(v); }
inline Ints isub8(Ints a, Ints b) { return _mm512_sub_epi8(a, b); }
inline Ints iand(Ints a, Ints b) { return _mm512_and_si512(a, b); }
inline Ints ior(Ints a, Ints b) { return _mm512_or_si512(a, b); }
inline Ints ishift4(Ints a) { return _mm512_srli_epi32(a, 4); }
// Each lane moved up by `bits`, or down by -bits.
inline Ints imoved(Ints a, int bits) {
  return bits > 0 ? _mm512_slli_epi32(a, bits) : _mm512_srli_epi32(a, -bits);
}
// Byte i of the result is byte indices[i], below 16, of its 16 bytes of the table.
inline Ints ilookup(Ints table, Ints indices) { return _mm512_shuffle_epi8(table, indices); }
// The same four bytes in every lane.
inline Ints ibroadcast4(const void* p) {
  int v;
  __builtin_memcpy(&v, p, sizeof(v));
  return _mm512_set1_epi32(v);
}
// acc + sum of four products of unsigned x by signed w, in every lane
// (Not the intrinsic: GCC 12 copies each accumulator twice a step around it.)
inline Ints idot(Ints acc, Ints x, Ints w) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
  return acc;
}
inline Ints iadd(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Vec ifloat(Ints a) { return _mm512_cvtepi32_ps(a); }
// kLanes signed bytes, each four times; and as floats
inline Ints ispread(const signed char* p) {
  const Ints wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm512_shuffle_epi8(wide, _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
}
inline Vec ifloat8(const signed char* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
