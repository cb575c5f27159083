// Affine weights of one group: scale * (code - zero), 8 codes that start on a byte.
// Included inside an anonymous namespace of an ISA unit; see codes_avx512.inl.h.

template <int Bits>
struct Codes {
  Codes() = default;
  Codes(float scale, int zero) : scale_(vset(scale)), zero_(_mm256_set1_epi32(zero)) {}

  Vec load(const unsigned char* row, std::int64_t k) const {
    return load_bytes(row + k * Bits / 8);
  }
  Vec load_n(const unsigned char* row, std::int64_t k, std::int64_t n) const {
    return load_rest(*this, row + k * Bits / 8, (n * Bits + 7) / 8);
  }
  Vec load_bytes(const unsigned char* p) const {
    __m256i codes;
    if constexpr (Bits == 8) {
      codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    } else if constexpr (Bits == 4) {
      int word = 0;
      __builtin_memcpy(&word, p, 4);
      const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
      codes = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(word), shifts),
                               _mm256_set1_epi32(15));
    } else {
      codes = _mm256_cvtepu16_epi32(unpack8<Bits>(p));
    }
    return vmul(scale_, _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, zero_)));
  }

  Vec scale_;
  __m256i zero_;
};
