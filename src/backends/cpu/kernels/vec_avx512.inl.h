// Vectors of 16 floats. Included inside an anonymous namespace of an ISA unit; every kernel is
// written against these names, so that one source serves all levels.

using Vec = __m512;
constexpr int kLanes = 16;
constexpr int kMr = 14;  // 14 x 2 accumulators, 2 of weights: 30 of 32 registers
constexpr int kNv = 2;

inline __mmask16 first(std::int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline Vec vzero() { return _mm512_setzero_ps(); }
inline Vec vset(float v) { return _mm512_set1_ps(v); }
inline Vec viota() { return _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
inline Vec vload(const float* p) { return _mm512_loadu_ps(p); }
inline Vec vload_n(const float* p, std::int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
inline void vstore(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline void vstore_n(float* p, Vec v, std::int64_t n) { _mm512_mask_storeu_ps(p, first(n), v); }
inline Vec vadd(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec vsub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec vmul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec vdiv(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec vfma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// NaN in `b` is kept.
inline Vec vmax(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec vmin(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec vabs(Vec a) { return _mm512_abs_ps(a); }
inline Vec vcopysign(Vec magnitude, Vec sign) {
  const __m512i bits = _mm512_set1_epi32(static_cast<int>(0x80000000u));
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(  // bits ? sign : magnitude
      bits, _mm512_castps_si512(sign), _mm512_castps_si512(magnitude), 0xca));
}
inline Vec vround(Vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// 2^n for whole n in [-126, 127]
inline Vec vpow2(Vec n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
}
// a < b ? yes : no; NaN compares false
inline Vec vselect_less(Vec a, Vec b, Vec yes, Vec no) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
inline float vsum(Vec a) { return _mm512_reduce_add_ps(a); }
inline float vhmax(Vec a) { return _mm512_reduce_max_ps(a); }

inline float scalar_bf16(std::uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
}
inline float scalar_f16(std::uint16_t bits) { return _cvtsh_ss(bits); }
inline Vec vload_f16(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
inline Vec vload_bf16(const void* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline void vstore_f16(void* p, Vec v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p),
                      _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void vstore_bf16(void* p, Vec v) {
  const __m512i u = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
  const __m512i bits =
      _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), rounded, quiet);
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}

// kLanes bytes, or kLanes halves of bytes (the low half first), as floats.
inline Vec vload_u8(const void* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
}
inline Vec vload_u4(const void* p) {
  // Quadword i holds byte i: its low half indexes by the low half of the byte (higher index bits
  // are ignored), and the copy moved up by 28 puts the other one in its high half.
  const __m512i bytes = _mm512_cvtepu8_epi64(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
  return _mm512_permutexvar_ps(_mm512_or_si512(bytes, _mm512_slli_epi64(bytes, 28)), viota());
}
// Whole numbers of [0, 255] as kLanes bytes.
inline void vstore_u8(void* p, Vec v) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}

// Field i, of Bits bits from the lowest on, of each lane: a bf16 number (16 bits) or a whole number
// (8, 4); the lane itself (32).
template <int Bits>
inline Vec vfield(Vec v, int i) {
  if constexpr (Bits == 32) return v;
  const __m512i u = _mm512_castps_si512(v);
  if constexpr (Bits == 16) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm512_castsi512_ps(i == 0 ? _mm512_slli_epi32(u, 16) : _mm512_and_si512(u, high));
  }
  const __m512i low = _mm512_set1_epi32((1 << Bits % 32) - 1);
  const auto shift = static_cast<unsigned>(i * Bits);
  return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(u, shift), low));
}

// Lane i = the sum of the lanes of a[i].
inline Vec vsum_each(const Vec (&a)[kLanes]) {
  Vec quarter[4];  // lane 4 k + i of quarter[q] = the sum of quarter k of a[4 q + i]
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    const Vec* v = a + 4 * q;
    const Vec low = vadd(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    const Vec high = vadd(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    quarter[q] = vadd(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xee));
  }
  const Vec low = vadd(_mm512_shuffle_f32x4(quarter[0], quarter[1], 0x44),
                       _mm512_shuffle_f32x4(quarter[0], quarter[1], 0xee));
  const Vec high = vadd(_mm512_shuffle_f32x4(quarter[2], quarter[3], 0x44),
                        _mm512_shuffle_f32x4(quarter[2], quarter[3], 0xee));
  return vadd(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
}

// dst[j * dst_stride + i] = src[i * src_stride + j], 16 x 16; rows of dst are stored in rising
// order.
inline void transpose(const float* src, std::int64_t src_stride, float* dst,
                      std::int64_t dst_stride) {
  __m512 r[16];
  __m512 t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(src + i * src_stride);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 4) {  // r[i + c]: column c of each quarter, rows i ... i + 3
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 16
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm512_shuffle_f32x4(r[c], r[c + 4], 0x88);
    t[c + 4] = _mm512_shuffle_f32x4(r[c], r[c + 4], 0xdd);
    t[c + 8] = _mm512_shuffle_f32x4(r[c + 8], r[c + 12], 0x88);
    t[c + 12] = _mm512_shuffle_f32x4(r[c + 8], r[c + 12], 0xdd);
  }
#pragma GCC unroll 16
  for (int c = 0; c < 4; ++c) {
    r[c] = _mm512_shuffle_f32x4(t[c], t[c + 8], 0x88);
    r[c + 8] = _mm512_shuffle_f32x4(t[c], t[c + 8], 0xdd);
    r[c + 4] = _mm512_shuffle_f32x4(t[c + 4], t[c + 12], 0x88);
    r[c + 12] = _mm512_shuffle_f32x4(t[c + 4], t[c + 12], 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_storeu_ps(dst + i * dst_stride, r[i]);
}
