// The byte products of ARMv8.2 (dotprod) take two signed operands, so activations are stored less
// 128. Included inside an anonymous namespace of an ISA unit.

constexpr unsigned char kByteShift = 128;

inline int32x4_t quad_dot(int32x4_t acc, int32x4_t x, int32x4_t w) {
  return vdotq_s32(acc, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w));
}
