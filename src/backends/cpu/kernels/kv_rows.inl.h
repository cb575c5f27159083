// Rows of a key/value cache; formats/kv_type.h defines their bytes. Included inside an anonymous
// namespace of an ISA unit.

constexpr std::int64_t kKvHeader = 8;  // scale and offset of a row of codes

template <KvStorage Type>
constexpr bool has_codes() {
  return Type == KvStorage::kInt8 || Type == KvStorage::kInt4;
}

// Bytes of `count` values, and of the numbers in front of them.
template <KvStorage Type>
constexpr std::int64_t kv_bytes(std::int64_t count) {
  if (Type == KvStorage::kF32) return 4 * count;
  if (Type == KvStorage::kInt8) return count;
  if (Type == KvStorage::kInt4) return (count + 1) / 2;
  return 2 * count;
}
template <KvStorage Type>
constexpr std::int64_t kv_header() {
  return has_codes<Type>() ? kKvHeader : 0;
}

// Values [d, d + kLanes) of a row; of integer rows the codes.
template <KvStorage Type>
inline Vec load_kv(const unsigned char* row, std::int64_t d) {
  const unsigned char* p = row + kv_header<Type>() + kv_bytes<Type>(d);
  if constexpr (Type == KvStorage::kF32) return load_floats<Storage::kF32>(p);
  if constexpr (Type == KvStorage::kF16) return vload_f16(p);
  if constexpr (Type == KvStorage::kBF16) return vload_bf16(p);
  if constexpr (Type == KvStorage::kInt8) return vload_u8(p);
  if constexpr (Type == KvStorage::kInt4) return vload_u4(p);
}

// Values [d, d + n) of a row that ends there; the other lanes are zero.
template <KvStorage Type>
inline Vec load_kv_n(const unsigned char* row, std::int64_t d, std::int64_t n) {
  unsigned char copy[kKvHeader + 4 * kLanes] = {};
  __builtin_memcpy(copy + kv_header<Type>(), row + kv_header<Type>() + kv_bytes<Type>(d),
                   static_cast<std::size_t>(kv_bytes<Type>(n)));
  return load_kv<Type>(copy, 0);
}

struct RowScale {
  float scale;
  float offset;
};

inline RowScale row_scale(const unsigned char* row) {
  RowScale s;
  __builtin_memcpy(&s, row, sizeof(s));
  return s;
}

// The row as floats, the last vector padded with numbers that mean nothing (zeros of float types).
template <KvStorage Type>
inline void decode_row_of(const unsigned char* row, std::int64_t head_dim, float* out) {
  Vec scale = vset(1.0f);
  Vec offset = vzero();
  if constexpr (has_codes<Type>()) {
    const RowScale s = row_scale(row);
    scale = vset(s.scale);
    offset = vset(s.offset);
  }
  const auto put = [&](std::int64_t d, Vec v) {
    vstore(out + d, has_codes<Type>() ? vfma(scale, v, offset) : v);
  };
  std::int64_t d = 0;
  for (; d + kLanes <= head_dim; d += kLanes) put(d, load_kv<Type>(row, d));
  if (d < head_dim) put(d, load_kv_n<Type>(row, d, head_dim - d));
}

template <KvStorage Type>
struct KvTag {
  static constexpr KvStorage kType = Type;
};

// fn(KvTag<type>()), for what is compiled once a type.
template <class Fn>
inline void with_kv_type(KvStorage type, const Fn& fn) {
  switch (type) {
    case KvStorage::kF32:
      return fn(KvTag<KvStorage::kF32>());
    case KvStorage::kF16:
      return fn(KvTag<KvStorage::kF16>());
    case KvStorage::kBF16:
      return fn(KvTag<KvStorage::kBF16>());
    case KvStorage::kInt8:
      return fn(KvTag<KvStorage::kInt8>());
    case KvStorage::kInt4:
      return fn(KvTag<KvStorage::kInt4>());
  }
}

inline void kv_decode(KvStorage type, const unsigned char* row, std::int64_t head_dim, float* out) {
  with_kv_type(type, [&](auto tag) { decode_row_of<tag.kType>(row, head_dim, out); });
}

// Values [i, i + kLanes) of x; behind the end its first one, which changes no range.
inline Vec load_padded(const float* x, std::int64_t i, std::int64_t count) {
  if (i + kLanes <= count) return vload(x + i);
  float padded[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) padded[lane] = x[i + lane < count ? i + lane : 0];
  return vload(padded);
}

// What encode_kv_row() of formats/kv_type.h does, bit by bit; *to_code turns values into codes.
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
  } else {
    encode_floats(x, head_dim, type, row);
  }
}
