// Vectors of 8 floats in two registers. Included inside an anonymous namespace of an ISA unit; see
// vec_avx512.inl.h for the meaning of each function.

struct Vec {
  float32x4_t low, high;
};
constexpr int kLanes = 8;
constexpr int kMr = 6;  // 6 x 4 registers of sums, 4 of weights, 1 of activations: 29 of 32
constexpr int kNv = 2;

inline float32x4_t quad_load_n(const float* p, std::int64_t n) {
  if (n >= 4) return vld1q_f32(p);
  float32x4_t v = vdupq_n_f32(0);
  if (n > 0) v = vld1q_lane_f32(p, v, 0);
  if (n > 1) v = vld1q_lane_f32(p + 1, v, 1);
  if (n > 2) v = vld1q_lane_f32(p + 2, v, 2);
  return v;
}
inline void quad_store_n(float* p, float32x4_t v, std::int64_t n) {
  if (n >= 4) return vst1q_f32(p, v);
  if (n > 0) vst1q_lane_f32(p, v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, v, 2);
}

inline Vec vset(float v) { return {vdupq_n_f32(v), vdupq_n_f32(v)}; }
inline Vec vzero() { return vset(0); }
inline Vec viota() { return {float32x4_t{0, 1, 2, 3}, float32x4_t{4, 5, 6, 7}}; }
inline Vec vload(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
inline Vec vload_n(const float* p, std::int64_t n) {
  return {quad_load_n(p, n), quad_load_n(p + 4, n - 4)};
}
inline void vstore(float* p, Vec v) {
  vst1q_f32(p, v.low);
  vst1q_f32(p + 4, v.high);
}
inline void vstore_n(float* p, Vec v, std::int64_t n) {
  quad_store_n(p, v.low, n);
  quad_store_n(p + 4, v.high, n - 4);
}
inline Vec vadd(Vec a, Vec b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
inline Vec vsub(Vec a, Vec b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
inline Vec vmul(Vec a, Vec b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
inline Vec vdiv(Vec a, Vec b) { return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)}; }
inline Vec vfma(Vec a, Vec b, Vec c) {
  return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}
inline Vec vmax(Vec a, Vec b) { return {vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)}; }
inline Vec vmin(Vec a, Vec b) { return {vminq_f32(a.low, b.low), vminq_f32(a.high, b.high)}; }
inline Vec vabs(Vec a) { return {vabsq_f32(a.low), vabsq_f32(a.high)}; }
inline Vec vcopysign(Vec magnitude, Vec sign) {
  const uint32x4_t bit = vdupq_n_u32(0x80000000u);
  return {vbslq_f32(bit, sign.low, magnitude.low), vbslq_f32(bit, sign.high, magnitude.high)};
}
inline Vec vround(Vec a) { return {vrndnq_f32(a.low), vrndnq_f32(a.high)}; }
inline float32x4_t quad_pow2(float32x4_t n) {
  const int32x4_t biased = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
  return vreinterpretq_f32_s32(vshlq_n_s32(biased, 23));
}
inline Vec vpow2(Vec n) { return {quad_pow2(n.low), quad_pow2(n.high)}; }
inline Vec vselect_less(Vec a, Vec b, Vec yes, Vec no) {
  return {vbslq_f32(vcltq_f32(a.low, b.low), yes.low, no.low),
          vbslq_f32(vcltq_f32(a.high, b.high), yes.high, no.high)};
}
inline float vsum(Vec a) { return vaddvq_f32(vaddq_f32(a.low, a.high)); }
inline float vhmax(Vec a) { return vmaxvq_f32(vmaxq_f32(a.low, a.high)); }

inline float scalar_bf16(std::uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
}
inline float scalar_f16(std::uint16_t bits) {
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))), 0);
}
inline uint16x8_t load_halves(const void* p) {
  return vreinterpretq_u16_u8(vld1q_u8(static_cast<const unsigned char*>(p)));
}
inline void store_halves(void* p, uint16x8_t v) {
  vst1q_u8(static_cast<unsigned char*>(p), vreinterpretq_u8_u16(v));
}
inline Vec vload_f16(const void* p) {
  const float16x8_t v = vreinterpretq_f16_u16(load_halves(p));
  return {vcvt_f32_f16(vget_low_f16(v)), vcvt_high_f32_f16(v)};
}
inline Vec vload_bf16(const void* p) {
  const uint16x8_t v = load_halves(p);
  return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(v), 16)),
          vreinterpretq_f32_u32(vshll_high_n_u16(v, 16))};
}
inline void vstore_f16(void* p, Vec v) {
  const float16x8_t halves = vcvt_high_f16_f32(vcvt_f16_f32(v.low), v.high);
  store_halves(p, vreinterpretq_u16_f16(halves));
}
inline uint16x4_t quad_to_bf16(float32x4_t v) {
  const uint32x4_t u = vreinterpretq_u32_f32(v);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
  return vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), rounded, quiet), 16);
}
inline void vstore_bf16(void* p, Vec v) {
  store_halves(p, vcombine_u16(quad_to_bf16(v.low), quad_to_bf16(v.high)));
}

inline Vec floats_of(uint16x8_t v) {
  return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(v))), vcvtq_f32_u32(vmovl_high_u16(v))};
}
inline Vec vload_u8(const void* p) {
  return floats_of(vmovl_u8(vld1_u8(static_cast<const unsigned char*>(p))));
}
inline Vec vload_u4(const void* p) {
  std::uint32_t word;
  __builtin_memcpy(&word, p, 4);
  const uint8x8_t bytes = vcreate_u8(word);
  return floats_of(vmovl_u8(vzip1_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8(bytes, 4))));
}
inline void vstore_u8(void* p, Vec v) {
  const uint16x8_t halves =
      vmovn_high_u32(vmovn_u32(vcvtnq_u32_f32(v.low)), vcvtnq_u32_f32(v.high));
  vst1_u8(static_cast<unsigned char*>(p), vmovn_u16(halves));
}

template <int Bits>
inline float32x4_t quad_field(float32x4_t v, int i) {
  const uint32x4_t u = vreinterpretq_u32_f32(v);
  if constexpr (Bits == 16) {
    return vreinterpretq_f32_u32(i == 0 ? vshlq_n_u32(u, 16)
                                        : vandq_u32(u, vdupq_n_u32(0xffff0000u)));
  }
  const uint32x4_t moved = vshlq_u32(u, vdupq_n_s32(-i * Bits));
  return vcvtq_f32_u32(vandq_u32(moved, vdupq_n_u32((1u << Bits % 32) - 1)));
}
template <int Bits>
inline Vec vfield(Vec v, int i) {
  if constexpr (Bits == 32) return v;
  return {quad_field<Bits>(v.low, i), quad_field<Bits>(v.high, i)};
}

// Sums of four vectors.
inline float32x4_t quad_sum_each(const Vec* a) {
  const auto sum = [](Vec v) { return vaddq_f32(v.low, v.high); };
  return vpaddq_f32(vpaddq_f32(sum(a[0]), sum(a[1])), vpaddq_f32(sum(a[2]), sum(a[3])));
}
inline Vec vsum_each(const Vec (&a)[kLanes]) { return {quad_sum_each(a), quad_sum_each(a + 4)}; }

struct Quads {
  float32x4_t q[4];
};
// Columns of four rows: result q[c] holds rows 0 ... 3 of column c.
inline Quads transpose_quads(const float* src, std::int64_t stride) {
  const float32x4x2_t top = vtrnq_f32(vld1q_f32(src), vld1q_f32(src + stride));
  const float32x4x2_t bottom = vtrnq_f32(vld1q_f32(src + 2 * stride), vld1q_f32(src + 3 * stride));
  Quads columns;
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const float64x2_t a = vreinterpretq_f64_f32(top.val[i]);
    const float64x2_t b = vreinterpretq_f64_f32(bottom.val[i]);
    columns.q[i] = vreinterpretq_f32_f64(vzip1q_f64(a, b));
    columns.q[i + 2] = vreinterpretq_f32_f64(vzip2q_f64(a, b));
  }
  return columns;
}
inline void transpose(const float* src, std::int64_t src_stride, float* dst,
                      std::int64_t dst_stride) {
#pragma GCC unroll 2
  for (int c = 0; c < kLanes; c += 4) {
    const Quads low = transpose_quads(src + c, src_stride);
    const Quads high = transpose_quads(src + 4 * src_stride + c, src_stride);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) vstore(dst + (c + i) * dst_stride, {low.q[i], high.q[i]});
  }
}
