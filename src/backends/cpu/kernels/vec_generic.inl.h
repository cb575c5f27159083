// Vectors of 4 floats in the compiler's own vector type, which every machine has. Included inside
// an anonymous namespace of an ISA unit; see vec_avx512.inl.h for the meaning of each function.

typedef float Vec __attribute__((vector_size(16)));
typedef int IntVec __attribute__((vector_size(16)));
constexpr int kLanes = 4;
constexpr int kMr = 4;
constexpr int kNv = 2;

inline Vec vzero() { return Vec{0, 0, 0, 0}; }
inline Vec vset(float v) { return Vec{v, v, v, v}; }
inline Vec viota() { return Vec{0, 1, 2, 3}; }
inline Vec vload(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
inline Vec vload_n(const float* p, std::int64_t n) {
  Vec v = vzero();
  for (std::int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
inline void vstore(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof(v)); }
inline void vstore_n(float* p, Vec v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) p[i] = v[i];
}
inline Vec vadd(Vec a, Vec b) { return a + b; }
inline Vec vsub(Vec a, Vec b) { return a - b; }
inline Vec vmul(Vec a, Vec b) { return a * b; }
inline Vec vdiv(Vec a, Vec b) { return a / b; }
inline Vec vfma(Vec a, Vec b, Vec c) { return a * b + c; }  // rounds twice
inline Vec vselect(IntVec mask, Vec yes, Vec no) {
  return reinterpret_cast<Vec>((mask & reinterpret_cast<IntVec>(yes)) |
                               (~mask & reinterpret_cast<IntVec>(no)));
}
inline Vec vselect_less(Vec a, Vec b, Vec yes, Vec no) { return vselect(a < b, yes, no); }
inline Vec vmax(Vec a, Vec b) { return vselect(a > b, a, b); }
inline Vec vmin(Vec a, Vec b) { return vselect(a < b, a, b); }
inline Vec vabs(Vec a) { return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(a) & 0x7fffffff); }
inline Vec vcopysign(Vec magnitude, Vec sign) {
  const IntVec bit = IntVec{} + static_cast<int>(0x80000000u);
  return vselect(bit, sign, magnitude);
}
// To the nearest whole number, ties to even, for |a| < 2^22.
inline Vec vround(Vec a) {
  const Vec magic = vset(12582912.0f);  // 1.5 * 2^23: the sum has no fraction bits left
  return (a + magic) - magic;
}
inline Vec vpow2(Vec n) {
  const IntVec whole = __builtin_convertvector(n, IntVec);
  return reinterpret_cast<Vec>((whole + 127) << 23);
}
inline float vsum(Vec a) { return (a[0] + a[2]) + (a[1] + a[3]); }
inline float vhmax(Vec a) {
  const float low = a[0] > a[2] ? a[0] : a[2];
  const float high = a[1] > a[3] ? a[1] : a[3];
  return low > high ? low : high;
}

inline float scalar_f16(std::uint16_t bits) { return to_float(f16{bits}); }
inline float scalar_bf16(std::uint16_t bits) { return to_float(bf16{bits}); }
inline Vec vload_f16(const void* p) {
  std::uint16_t h[4];
  __builtin_memcpy(h, p, sizeof(h));
  return Vec{scalar_f16(h[0]), scalar_f16(h[1]), scalar_f16(h[2]), scalar_f16(h[3])};
}
inline Vec vload_bf16(const void* p) {
  std::uint16_t h[4];
  __builtin_memcpy(h, p, sizeof(h));
  return Vec{scalar_bf16(h[0]), scalar_bf16(h[1]), scalar_bf16(h[2]), scalar_bf16(h[3])};
}
inline void vstore_f16(void* p, Vec v) {
  const std::uint16_t h[4] = {to_f16(v[0]).bits, to_f16(v[1]).bits, to_f16(v[2]).bits,
                              to_f16(v[3]).bits};
  __builtin_memcpy(p, h, sizeof(h));
}
inline void vstore_bf16(void* p, Vec v) {
  const std::uint16_t h[4] = {to_bf16(v[0]).bits, to_bf16(v[1]).bits, to_bf16(v[2]).bits,
                              to_bf16(v[3]).bits};
  __builtin_memcpy(p, h, sizeof(h));
}

inline Vec vload_u8(const void* p) {
  const auto* b = static_cast<const unsigned char*>(p);
  return Vec{static_cast<float>(b[0]), static_cast<float>(b[1]), static_cast<float>(b[2]),
             static_cast<float>(b[3])};
}
inline Vec vload_u4(const void* p) {
  const auto* b = static_cast<const unsigned char*>(p);
  return Vec{static_cast<float>(b[0] & 15), static_cast<float>(b[0] >> 4),
             static_cast<float>(b[1] & 15), static_cast<float>(b[1] >> 4)};
}
inline void vstore_u8(void* p, Vec v) {
  auto* b = static_cast<unsigned char*>(p);
  for (int i = 0; i < kLanes; ++i) b[i] = static_cast<unsigned char>(v[i]);
}

template <int Bits>
inline Vec vfield(Vec v, int i) {
  if constexpr (Bits == 32) return v;
  typedef unsigned Words __attribute__((vector_size(16)));
  const Words u = reinterpret_cast<Words>(v);
  if constexpr (Bits == 16) return reinterpret_cast<Vec>(i == 0 ? u << 16 : u & 0xffff0000u);
  const Words field = (u >> (i * Bits)) & ((1u << Bits % 32) - 1);
  return __builtin_convertvector(reinterpret_cast<IntVec>(field), Vec);
}

inline Vec vsum_each(const Vec (&a)[kLanes]) {
  return Vec{vsum(a[0]), vsum(a[1]), vsum(a[2]), vsum(a[3])};
}

inline void transpose(const float* src, std::int64_t src_stride, float* dst,
                      std::int64_t dst_stride) {
  float copy[kLanes][kLanes];
  for (int i = 0; i < kLanes; ++i) vstore(copy[i], vload(src + i * src_stride));
  for (int j = 0; j < kLanes; ++j) {
    for (int i = 0; i < kLanes; ++i) dst[j * dst_stride + i] = copy[i][j];
  }
}
