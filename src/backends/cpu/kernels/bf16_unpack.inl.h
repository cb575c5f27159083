// Panels of integer weights (int8_kernels.h) to panels of bf16 pairs: scale * (code - zero) in
// float32, rounded to bf16. Included inside an anonymous namespace of an ISA unit.

// Byte j of every lane, sign-extended, as a weight.
template <int j>
inline Vec weight_of_byte(Ints bytes, Vec zero, Vec scale) {
  const Ints wide = _mm512_srai_epi32(_mm512_slli_epi32(bytes, 24 - 8 * j), 24);
  return vmul(vsub(ifloat(wide), zero), scale);
}

// Four columns of 16 rows to two vectors of pairs, kBf16PanelRows apart.
inline void store_pairs(Ints bytes, Vec zero, Vec scale, std::uint32_t* out) {
  pstore(out,
         pnarrow(weight_of_byte<0>(bytes, zero, scale), weight_of_byte<1>(bytes, zero, scale)));
  pstore(out + kBf16PanelRows,
         pnarrow(weight_of_byte<2>(bytes, zero, scale), weight_of_byte<3>(bytes, zero, scale)));
}

template <bool kNibbles>
void bf16_unpack_part(const PanelView& w, std::int64_t panel, int part, std::int64_t begin,
                      std::int64_t count, std::uint32_t* out) {
  constexpr std::int64_t kUnit = unit_columns<kNibbles>();
  const unsigned char* codes =
      w.codes + panel * w.panel_bytes + part * kVecBytes + begin / kUnit * kUnitBytes;
  const Ints mask = iset8(15);
  out += part * kLanes;
  for (std::int64_t k = begin; k < begin + count; k += kInt8Block) {
    const GroupNumbers numbers(w, panel, part, k / w.group);
    const Vec zero = numbers.zeros == nullptr ? vzero() : ifloat8(numbers.zeros);
    for (std::int64_t u = 0; u < kInt8Block; u += kUnit, codes += kUnitBytes) {
      const Ints packed = iload(codes);
      if constexpr (kNibbles) {
        store_pairs(iand(packed, mask), zero, numbers.scale, out);
        store_pairs(iand(ishift4(packed), mask), zero, numbers.scale, out + 2 * kBf16PanelRows);
      } else {
        store_pairs(packed, zero, numbers.scale, out);
      }
      out += kUnit / 2 * kBf16PanelRows;
    }
  }
}

void bf16_unpack(const PanelView& w, std::int64_t panel, std::int64_t begin, std::int64_t count,
                 std::uint32_t* out) {
  static_assert(kBf16PanelRows == kPanelRows);
  for (int part = 0; part < kParts; ++part) {
    if (w.nibbles) {
      bf16_unpack_part<true>(w, panel, part, begin, count, out);
    } else {
      bf16_unpack_part<false>(w, panel, part, begin, count, out);
    }
  }
}
