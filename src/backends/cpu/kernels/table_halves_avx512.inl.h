// What codes of 8 bits that are halves with fewer bits stand for (table_panel_kernels.h). Included
// inside an anonymous namespace of an ISA unit of AVX-512, after compiler_vectors.inl.h.

// kDown: bits that exponent and mantissa move down by.
template <int kDown>
class HalfValues {
 public:
  static constexpr int kColumns = 4;

  explicit HalfValues(const TablePanelView& /*w*/) {}
  // body(column, its values)
  template <class Body>
  void each(const unsigned char* unit, const Body& body) const {
    const __m512i pairs = _mm512_loadu_si512(unit);
    const __m512i low = halves(_mm512_slli_epi16(pairs, 8)), high = halves(pairs);
    body(0, _mm512_cvtph_ps(_mm512_castsi512_si256(low)));
    body(1, _mm512_cvtph_ps(_mm512_extracti64x4_epi64(low, 1)));
    body(2, _mm512_cvtph_ps(_mm512_castsi512_si256(high)));
    body(3, _mm512_cvtph_ps(_mm512_extracti64x4_epi64(high, 1)));
  }

 private:
  // Of the high bytes.
  static __m512i halves(__m512i pairs) {
    constexpr int kBits = 0x8000 | 0x7f00 >> kDown;
    return _mm512_and_si512(_mm512_srai_epi16(pairs, kDown),
                            _mm512_set1_epi16(static_cast<short>(kBits)));
  }
};
