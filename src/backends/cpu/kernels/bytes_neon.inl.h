// Byte products of 8 lanes in two registers. Included inside an anonymous namespace of an ISA unit,
// after vec_neon.inl.h and one of dot_neon_signed.inl.h and dot_neon_mixed.inl.h; see
// bytes_avx512.inl.h for the meaning of each function.

struct Ints {
  int32x4_t low, high;
};
constexpr int kTileRows = 3;  // with kNv vectors of sums and of results: 24 registers
constexpr std::int64_t kPrefetch = 4096;
constexpr bool kWholeBytes = true;
constexpr bool kUnsignedBytes = kByteShift == 0;

inline int8x16_t bytes_of(int32x4_t v) { return vreinterpretq_s8_s32(v); }
inline int32x4_t from_bytes(int8x16_t v) { return vreinterpretq_s32_s8(v); }
inline int32x4_t from_bytes(uint8x16_t v) { return vreinterpretq_s32_u8(v); }

inline Ints izero() { return {vdupq_n_s32(0), vdupq_n_s32(0)}; }
inline Ints iload(const void* p) {
  const auto* bytes = static_cast<const unsigned char*>(p);
  return {from_bytes(vld1q_u8(bytes)), from_bytes(vld1q_u8(bytes + 16))};
}
inline void istore(void* p, Ints v) {
  auto* bytes = static_cast<signed char*>(p);
  vst1q_s8(bytes, bytes_of(v.low));
  vst1q_s8(bytes + 16, bytes_of(v.high));
}
inline Ints iset8(int v) {
  const int32x4_t all = from_bytes(vdupq_n_s8(static_cast<signed char>(v)));
  return {all, all};
}
inline Ints iset32(int v) { return {vdupq_n_s32(v), vdupq_n_s32(v)}; }
inline Ints isub8(Ints a, Ints b) {
  return {from_bytes(vsubq_s8(bytes_of(a.low), bytes_of(b.low))),
          from_bytes(vsubq_s8(bytes_of(a.high), bytes_of(b.high)))};
}
inline Ints iand(Ints a, Ints b) { return {vandq_s32(a.low, b.low), vandq_s32(a.high, b.high)}; }
inline Ints ior(Ints a, Ints b) { return {vorrq_s32(a.low, b.low), vorrq_s32(a.high, b.high)}; }
inline int32x4_t quad_moved(int32x4_t a, int bits) {
  return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(bits)));
}
inline Ints imoved(Ints a, int bits) { return {quad_moved(a.low, bits), quad_moved(a.high, bits)}; }
inline int32x4_t quad_lookup(int32x4_t table, int32x4_t indices) {
  return from_bytes(vqtbl1q_s8(bytes_of(table), vreinterpretq_u8_s32(indices)));
}
inline Ints ilookup(Ints table, Ints indices) {
  return {quad_lookup(table.low, indices.low), quad_lookup(table.high, indices.high)};
}
inline int32x4_t quad_shift4(int32x4_t a) {
  return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), 4));
}
inline Ints ishift4(Ints a) { return {quad_shift4(a.low), quad_shift4(a.high)}; }
inline Ints ibroadcast4(const void* p) {
  int v;
  __builtin_memcpy(&v, p, sizeof(v));
  return {vdupq_n_s32(v), vdupq_n_s32(v)};
}
inline Ints idot(Ints acc, Ints x, Ints w) {
  return {quad_dot(acc.low, x.low, w.low), quad_dot(acc.high, x.high, w.high)};
}
inline Ints iadd(Ints a, Ints b) { return {vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)}; }
inline Vec ifloat(Ints a) { return {vcvtq_f32_s32(a.low), vcvtq_f32_s32(a.high)}; }
inline Ints ispread(const signed char* p) {
  const int8x16_t values = vcombine_s8(vld1_s8(p), vdup_n_s8(0));
  const uint8x16_t low = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
  const uint8x16_t high = vaddq_u8(low, vdupq_n_u8(4));
  return {from_bytes(vqtbl1q_s8(values, low)), from_bytes(vqtbl1q_s8(values, high))};
}
inline Vec ifloat8(const signed char* p) {
  const int16x8_t wide = vmovl_s8(vld1_s8(p));
  return ifloat({vmovl_s16(vget_low_s16(wide)), vmovl_high_s16(wide)});
}
