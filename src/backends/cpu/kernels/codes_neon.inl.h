// Affine weights of one group: scale * (code - zero), 8 codes that start on a byte.
// Included inside an anonymous namespace of an ISA unit, after windows.inl.h; see
// codes_avx512.inl.h.

// Eight codes to eight 16-bit lanes: a table look-up gives each lane its window, which is shifted
// by the lane's own count.
template <int Bits>
inline uint16x8_t unpack8(const unsigned char* p) {
  constexpr auto at = [](int i) {
    return static_cast<unsigned char>(window_byte<Bits>(i / 2, i % 2));
  };
  constexpr auto shift = [](int lane) { return static_cast<short>(-(lane * Bits % 8)); };
  const uint8x16_t places = {at(0), at(1), at(2),  at(3),  at(4),  at(5),  at(6),  at(7),
                             at(8), at(9), at(10), at(11), at(12), at(13), at(14), at(15)};
  const int16x8_t shifts = {shift(0), shift(1), shift(2), shift(3),
                            shift(4), shift(5), shift(6), shift(7)};
  const uint8x16_t bytes = vcombine_u8(vcreate_u8(load_number<Bits>(p)), vdup_n_u8(0));
  const uint16x8_t windows = vreinterpretq_u16_u8(vqtbl1q_u8(bytes, places));
  return vandq_u16(vshlq_u16(windows, shifts), vdupq_n_u16((1 << Bits) - 1));
}

// Half as many instructions when no code crosses a byte.
template <>
inline uint16x8_t unpack8<8>(const unsigned char* p) {
  return vmovl_u8(vld1_u8(p));
}
template <>
inline uint16x8_t unpack8<4>(const unsigned char* p) {
  const uint8x8_t bytes = vcreate_u8(load_number<4>(p));
  return vmovl_u8(vzip1_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8(bytes, 4)));
}

template <int Bits>
struct Codes {
  Codes() = default;
  Codes(float scale, int zero)
      : scale_(vset(scale)), zero_(vdupq_n_s16(static_cast<short>(zero))) {}

  Vec load(const unsigned char* row, std::int64_t k) const {
    return load_bytes(row + k * Bits / 8);
  }
  Vec load_n(const unsigned char* row, std::int64_t k, std::int64_t n) const {
    return load_rest(*this, row + k * Bits / 8, (n * Bits + 7) / 8);
  }
  Vec load_bytes(const unsigned char* p) const {
    const int16x8_t codes = vsubq_s16(vreinterpretq_s16_u16(unpack8<Bits>(p)), zero_);
    const Vec values = {vcvtq_f32_s32(vmovl_s16(vget_low_s16(codes))),
                        vcvtq_f32_s32(vmovl_high_s16(codes))};
    return vmul(scale_, values);
  }

  Vec scale_;
  int16x8_t zero_;
};
