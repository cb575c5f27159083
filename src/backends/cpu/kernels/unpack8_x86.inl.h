// Eight codes of `Bits` bits to eight 16-bit lanes. A shuffle gives each lane its window, a
// multiplication shifts lane by lane, and a common shift aligns. Included inside an anonymous
// namespace of an ISA unit.

template <int Bits>
constexpr short window_factor(int lane) {
  return static_cast<short>(1 << (7 - lane * Bits % 8));
}

template <int Bits>
inline __m128i unpack8(const unsigned char* p) {
  constexpr auto at = window_byte<Bits>;
  constexpr auto factor = window_factor<Bits>;
  const __m128i windows =
      _mm_shuffle_epi8(_mm_cvtsi64_si128(static_cast<long long>(load_number<Bits>(p))),
                       _mm_setr_epi8(at(0, 0), at(0, 1), at(1, 0), at(1, 1), at(2, 0), at(2, 1),
                                     at(3, 0), at(3, 1), at(4, 0), at(4, 1), at(5, 0), at(5, 1),
                                     at(6, 0), at(6, 1), at(7, 0), at(7, 1)));
  const __m128i shifted =
      _mm_mullo_epi16(windows, _mm_setr_epi16(factor(0), factor(1), factor(2), factor(3), factor(4),
                                              factor(5), factor(6), factor(7)));
  return _mm_and_si128(_mm_srli_epi16(shifted, 7), _mm_set1_epi16((1 << Bits) - 1));
}
