// Rows of a key/value cache; formats/kv_type.h defines their bytes. Included inside an anonymous
// namespace of an ISA unit.

constexpr std::int64_t kKvHeader = 8;  // scale and offset of a row of codes

template <KvStorage Type>
constexpr bool has_codes() {
  return Type == KvStorage::kInt8 || Type == KvStorage::kInt4 || Type == KvStorage::kFp8;
}

// Bytes of `count` values, and of the numbers in front of them.
template <KvStorage Type>
constexpr std::int64_t kv_bytes(std::int64_t count) {
  if (Type == KvStorage::kF32) return 4 * count;
  if (Type == KvStorage::kInt8 || Type == KvStorage::kFp8) return count;
  if (Type == KvStorage::kInt4) return (count + 1) / 2;
  return 2 * count;
}
template <KvStorage Type>
constexpr std::int64_t kv_header() {
  return has_codes<Type>() ? kKvHeader : 0;
}

// kLanes codes of e4m3 (but NaN) as numbers. A code's seven lower bits, moved to those of float32,
// are a normal number 120 exponents too low; with the least exponent of all normal ones, 2^-6,
// added and taken away again they are a subnormal one.
inline Vec load_e4m3(const unsigned char* p) {
  typedef unsigned char Codes __attribute__((vector_size(kLanes)));
  typedef unsigned Bits __attribute__((vector_size(4 * kLanes)));
  typedef float Values __attribute__((vector_size(4 * kLanes)));
  constexpr unsigned kExponents = 120u << 23;
  constexpr unsigned kOne = 1u << 23;  // exponent
  Codes codes;
  __builtin_memcpy(&codes, p, sizeof(codes));
  const Bits code = __builtin_convertvector(codes, Bits);
  const Bits size = ((code & 0x7fu) << 20) + kExponents;
  const Values normal = reinterpret_cast<Values>(size);
  const Values subnormal = reinterpret_cast<Values>(size + kOne) - 0x1p-6f;
  const Values magnitude = (code & 0x78u) == 0 ? subnormal : normal;
  const Bits value = reinterpret_cast<Bits>(magnitude) | (code & 0x80u) << 24;
  return __builtin_bit_cast(Vec, value);  // of some levels a struct
}

// Values [d, d + kLanes) of a row; of rows with a header the codes.
template <KvStorage Type>
inline Vec load_kv(const unsigned char* row, std::int64_t d) {
  const unsigned char* p = row + kv_header<Type>() + kv_bytes<Type>(d);
  if constexpr (Type == KvStorage::kF32) return load_floats<Storage::kF32>(p);
  if constexpr (Type == KvStorage::kF16) return vload_f16(p);
  if constexpr (Type == KvStorage::kBF16) return vload_bf16(p);
  if constexpr (Type == KvStorage::kInt8) return vload_u8(p);
  if constexpr (Type == KvStorage::kInt4) return vload_u4(p);
  if constexpr (Type == KvStorage::kFp8) return load_e4m3(p);
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
    case KvStorage::kFp8:
      return fn(KvTag<KvStorage::kFp8>());
  }
}

inline void kv_decode(KvStorage type, const unsigned char* row, std::int64_t head_dim, float* out) {
  with_kv_type(type, [&](auto tag) { decode_row_of<tag.kType>(row, head_dim, out); });
}
