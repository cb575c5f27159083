// The byte products of ARMv8.6 (i8mm) of an unsigned and a signed operand. Included inside an
// anonymous namespace of an ISA unit.

constexpr unsigned char kByteShift = 0;

inline int32x4_t quad_dot(int32x4_t acc, int32x4_t x, int32x4_t w) {
  return vusdotq_s32(acc, vreinterpretq_u8_s32(x), vreinterpretq_s8_s32(w));
}
