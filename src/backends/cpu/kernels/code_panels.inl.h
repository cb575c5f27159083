// Panels of codes for products of bytes, made of rows of a cache. Included inside an anonymous
// namespace of an ISA unit of AVX-512, after attention_dots.inl.h.
//
//   keys    [head_dim / 4][kPanelKeys] words: 4 codes of a key each, unsigned
//   values  [kValueKeys / 4][kPanelColumns] words: 4 keys of a column each, signed; columns in the
//           order that interleaving leaves, which order_columns() mends

// What is taken from codes so that signed bytes hold them.
template <KvStorage Type>
constexpr int kLowered = Type == KvStorage::kInt8 ? 128 : 0;

inline __m512i load_code_rows(const unsigned char* low, const unsigned char* high) {
  const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low));
  const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(high));
  return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}

// 16 keys of 64 nibbles: word 2i of the panel holds the even ones of word i of a row, word 2i + 1
// the odd ones.
__attribute__((noinline)) void pack_nibbles(const unsigned char* rows, std::int64_t stride,
                                            std::uint32_t* panel) {
  __m512 r[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const unsigned char* row = rows + (i < 4 ? i : i + 4) * stride;  // two rows a vector
    r[i] = _mm512_castsi512_ps(load_code_rows(row, row + 4 * stride));
  }
  transpose_quarters(r);
  const __m512i mask = iset8(15);
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i low = _mm512_castps_si512(_mm512_shuffle_f32x4(r[c], r[c + 4], 0x88));
    const __m512i high = _mm512_castps_si512(_mm512_shuffle_f32x4(r[c], r[c + 4], 0xdd));
    std::uint32_t* out = panel + 2 * c * kPanelKeys;
    istore(out, iand(low, mask));
    istore(out + kPanelKeys, iand(ishift4(low), mask));
    istore(out + 8 * kPanelKeys, iand(high, mask));
    istore(out + 9 * kPanelKeys, iand(ishift4(high), mask));
  }
}

// kPanelKeys whole rows of codes.
template <KvStorage Type>
inline void pack_code_keys(const unsigned char* codes, std::int64_t stride, std::int64_t head_dim,
                           std::uint32_t* panel) {
  for (std::int64_t d = 0; d < head_dim; d += 64) {
    for (std::int64_t i = 0; i < kPanelKeys; i += kLanes) {
      const unsigned char* rows = codes + i * stride + kv_bytes<Type>(d);
      std::uint32_t* out = panel + d / 4 * kPanelKeys + i;
      if constexpr (Type == KvStorage::kInt8) {
        pack_words(rows, stride, out);
      } else {
        pack_nibbles(rows, stride, out);
      }
    }
  }
}

// Bytes of 4 vectors: z[0], z[1], ... hold neighbours of all 4 in every word.
inline void interleave(const Ints (&rows)[4], Ints (&z)[4]) {
  const Ints low01 = _mm512_unpacklo_epi8(rows[0], rows[1]);
  const Ints high01 = _mm512_unpackhi_epi8(rows[0], rows[1]);
  const Ints low23 = _mm512_unpacklo_epi8(rows[2], rows[3]);
  const Ints high23 = _mm512_unpackhi_epi8(rows[2], rows[3]);
  z[0] = _mm512_unpacklo_epi16(low01, low23);
  z[1] = _mm512_unpackhi_epi16(low01, low23);
  z[2] = _mm512_unpacklo_epi16(high01, high23);
  z[3] = _mm512_unpackhi_epi16(high01, high23);
}

// put(key, vectors): the words of keys [key, key + 4).
template <KvStorage Type, class Put>
inline void interleave_values(const unsigned char* codes, std::int64_t stride, const Put& put) {
  Ints rows[4];
  Ints z[4];
  if constexpr (Type == KvStorage::kInt8) {
    for (std::int64_t i = 0; i < kValueKeys; i += 4, codes += 4 * stride) {
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        rows[c] = _mm512_xor_si512(iset8(-128), iload(codes + c * stride));
      }
      interleave(rows, z);
      put(i, z);
    }
  } else {
    for (std::int64_t i = 0; i < kValueKeys; i += 8, codes += 8 * stride) {
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        rows[c] = load_code_rows(codes + c * stride, codes + (c + 4) * stride);
      }
      interleave(rows, z);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const Ints mask = iset8(15);
        const Ints low = half == 0 ? _mm512_shuffle_i64x2(z[0], z[1], 0x44)
                                   : _mm512_shuffle_i64x2(z[0], z[1], 0xee);
        const Ints high = half == 0 ? _mm512_shuffle_i64x2(z[2], z[3], 0x44)
                                    : _mm512_shuffle_i64x2(z[2], z[3], 0xee);
        const Ints words[4] = {iand(low, mask), iand(high, mask), iand(ishift4(low), mask),
                               iand(ishift4(high), mask)};
        put(i + 4 * half, words);
      }
    }
  }
}

// kPanelColumns columns of kValueKeys rows, of which the first `rows` are no padding (zeros); means
// of the columns of those go to `means`, in the order of the panel.
template <KvStorage Type>
inline void pack_code_values(const unsigned char* codes, std::int64_t stride, std::int64_t rows,
                             std::uint32_t* panel, float* means) {
  Ints sums[4] = {izero(), izero(), izero(), izero()};
  interleave_values<Type>(codes, stride, [&](std::int64_t key, const Ints(&words)[4]) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      istore(panel + key / 4 * kPanelColumns + c * kLanes, words[c]);
      sums[c] = idot(sums[c], iset8(1), words[c]);
    }
  });
  const Vec lowered = vset(static_cast<float>(kLowered<Type> * (kValueKeys - rows)));
  const Vec share = vset(1.0f / static_cast<float>(rows));
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    vstore(means + c * kLanes, vmul(vadd(ifloat(sums[c]), lowered), share));
  }
}

// Sums of kPanelColumns columns in the order of a panel -> in order, each plus `start`.
template <KvStorage Type>
inline void order_columns(float start, float* sums) {
  const Vec v0 = vload(sums);
  const Vec v1 = vload(sums + kLanes);
  const Vec v2 = vload(sums + 2 * kLanes);
  const Vec v3 = vload(sums + 3 * kLanes);
  const Vec add = vset(start);
  const auto put = [&](int i, Vec v) { vstore(sums + i * kLanes, vadd(add, v)); };
  if constexpr (Type == KvStorage::kInt8) {
    const Vec low01 = _mm512_shuffle_f32x4(v0, v1, 0x44);
    const Vec high01 = _mm512_shuffle_f32x4(v0, v1, 0xee);
    const Vec low23 = _mm512_shuffle_f32x4(v2, v3, 0x44);
    const Vec high23 = _mm512_shuffle_f32x4(v2, v3, 0xee);
    put(0, _mm512_shuffle_f32x4(low01, low23, 0x88));
    put(1, _mm512_shuffle_f32x4(low01, low23, 0xdd));
    put(2, _mm512_shuffle_f32x4(high01, high23, 0x88));
    put(3, _mm512_shuffle_f32x4(high01, high23, 0xdd));
  } else {  // v0, v1: even columns; v2, v3: odd ones
    const Ints low = _mm512_set_epi32(27, 11, 26, 10, 25, 9, 24, 8, 19, 3, 18, 2, 17, 1, 16, 0);
    const Ints high = iadd(low, _mm512_set1_epi32(4));
    put(0, _mm512_permutex2var_ps(v0, low, v2));
    put(1, _mm512_permutex2var_ps(v1, low, v3));
    put(2, _mm512_permutex2var_ps(v0, high, v2));
    put(3, _mm512_permutex2var_ps(v1, high, v3));
  }
}
