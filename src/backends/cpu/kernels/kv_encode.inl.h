// Rows of a key/value cache from floats, bit by bit as encode_kv_row() of formats/kv_type.h makes
// them. Included inside an anonymous namespace of an ISA unit.

// Values [i, i + kLanes) of x; behind the end its first one, which changes no range.
inline Vec load_padded(const float* x, std::int64_t i, std::int64_t count) {
  if (i + kLanes <= count) return vload(x + i);
  float padded[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) padded[lane] = x[i + lane < count ? i + lane : 0];
  return vload(padded);
}

// Scale and offset of an integer row; *to_code turns values into codes.
inline RowScale scale_of(const float* x, std::int64_t count, float top, float* to_code) {
  Vec high = vset(-__builtin_inff());
  Vec low = high;        // the largest of the negated values
  Vec damage = vzero();  // NaN once a value is not finite
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const Vec v = load_padded(x, i, count);
    low = vmax(low, vsub(vzero(), v));
    high = vmax(high, v);
    damage = vfma(v, vzero(), damage);
  }
  *to_code = 0;
  const float offset = 0.0f - vhmax(low);
  const float scale = (vhmax(high) - offset) / top;
  if (!(vsum(damage) == 0) || !__builtin_isfinite(scale)) {
    return {__builtin_nanf(""), __builtin_nanf("")};
  }
  const float inverse = 1.0f / scale;
  if (!__builtin_isfinite(inverse)) return {0, offset};
  *to_code = inverse;
  return {scale, offset};
}

inline void encode_codes(const float* x, std::int64_t count, bool nibbles, unsigned char* row) {
  const float top = nibbles ? 15.0f : 255.0f;
  float to_code = 0;
  const RowScale s = scale_of(x, count, top, &to_code);
  __builtin_memcpy(row, &s, sizeof(s));
  unsigned char* out = row + kKvHeader;
  for (std::int64_t i = 0; i < count; i += kLanes) {
    unsigned char codes[kLanes] = {};
    if (to_code != 0) {
      const Vec steps = vmul(vsub(load_padded(x, i, count), vset(s.offset)), vset(to_code));
      vstore_u8(codes, vmin(vround(steps), vset(top)));
    }
    const std::int64_t n = count - i < kLanes ? count - i : kLanes;
    if (!nibbles) {
      for (std::int64_t j = 0; j < n; ++j) out[i + j] = codes[j];
      continue;
    }
    for (std::int64_t j = 0; j < n; j += 2) {
      const int high = j + 1 < n ? codes[j + 1] : 0;
      out[(i + j) / 2] = static_cast<unsigned char>(codes[j] | high << 4);
    }
  }
}

inline void encode_e4m3(const float* x, std::int64_t count, unsigned char* row) {
  constexpr float kTop = 448.0f;
  constexpr FloatRounding kE4m3 = {.mantissa = 3,
                                   .rebias = (127u - 7u) << 23,
                                   .top = kTop,
                                   .smallest_normal = 0x1p-6f,
                                   .magic = 0x1.8p14f,
                                   .sign = 0x80};
  RowScale s = {__builtin_nanf(""), __builtin_nanf("")};
  float largest = 0;
  if (span_magnitudes(x, 1, count, &largest)) s = {largest / kTop, 0};
  __builtin_memcpy(row, &s, sizeof(s));
  round_to_codes(kE4m3, &s.scale, x, 1, count, row + kKvHeader);
}

inline void encode_floats(const float* x, std::int64_t count, KvStorage type, unsigned char* row) {
  const std::int64_t size = type == KvStorage::kF32 ? 4 : 2;
  const auto put = [type](unsigned char* to, Vec v) {
    if (type == KvStorage::kF16) return vstore_f16(to, v);
    if (type == KvStorage::kBF16) return vstore_bf16(to, v);
    __builtin_memcpy(to, &v, sizeof(v));
  };
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) put(row + i * size, vload(x + i));
  if (i < count) {
    unsigned char copy[4 * kLanes];
    put(copy, vload_n(x + i, count - i));
    __builtin_memcpy(row + i * size, copy, static_cast<std::size_t>((count - i) * size));
  }
}

inline void kv_encode(const float* x, std::int64_t head_dim, KvStorage type, unsigned char* row) {
  if (type == KvStorage::kInt8 || type == KvStorage::kInt4) {
    encode_codes(x, head_dim, type == KvStorage::kInt4, row);
  } else if (type == KvStorage::kFp8) {
    encode_e4m3(x, head_dim, row);
  } else {
    encode_floats(x, head_dim, type, row);
  }
}
