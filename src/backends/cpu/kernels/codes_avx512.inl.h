// Affine weights of one group: scale * (code - zero), 16 codes that start on a byte.
// Included inside an anonymous namespace of an ISA unit.

template <int Bits>
struct Codes {
  Codes() = default;
  Codes(float scale, int zero) : scale_(vset(scale)), zero_(_mm512_set1_epi32(zero)) {}

  // Weights [k, k + 16) of the row; reads no byte that does not belong to them.
  Vec load(const unsigned char* row, std::int64_t k) const {
    return load_bytes(row + k * Bits / 8);
  }
  // Weights [k, k + n), n < 16; other lanes are finite multiples of the scale.
  Vec load_n(const unsigned char* row, std::int64_t k, std::int64_t n) const {
    return load_rest(*this, row + k * Bits / 8, (n * Bits + 7) / 8);
  }
  Vec load_bytes(const unsigned char* p) const {
    __m512i codes;
    if constexpr (Bits == 8) {
      codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    } else {
      codes = _mm512_cvtepu16_epi32(_mm256_set_m128i(unpack8<Bits>(p + Bits), unpack8<Bits>(p)));
    }
    return vmul(scale_, _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, zero_)));
  }

  Vec scale_;
  __m512i zero_;
};

// The 16 values of the group stand in a register, and the codes index it.
template <>
struct Codes<4> {
  Codes() = default;
  Codes(float scale, int zero)
      : table_(vmul(vset(scale), vsub(viota(), vset(static_cast<float>(zero))))) {}

  Vec load(const unsigned char* row, std::int64_t k) const { return load_bytes(row + k / 2); }
  Vec load_n(const unsigned char* row, std::int64_t k, std::int64_t n) const {
    return load_rest(*this, row + k / 2, (n + 1) / 2);
  }
  Vec load_bytes(const unsigned char* p) const {
    // Quadword i holds byte i: its low half indexes by the low nibble (higher index bits are
    // ignored), and the copy moved up by 28 puts the high nibble in its high half.
    const __m512i bytes =
        _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    return _mm512_permutexvar_ps(_mm512_or_si512(bytes, _mm512_slli_epi64(bytes, 28)), table_);
  }

  Vec table_;
};
