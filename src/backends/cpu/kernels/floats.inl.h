// Stored floats of any type as vectors of float32.
// Included inside an anonymous namespace of an ISA unit.

inline float load_scalar(const unsigned char* p, Storage type, std::int64_t index) {
  if (type == Storage::kF32) {
    float v;
    __builtin_memcpy(&v, p + 4 * index, sizeof(v));
    return v;
  }
  std::uint16_t bits;
  __builtin_memcpy(&bits, p + 2 * index, sizeof(bits));
  return type == Storage::kF16 ? scalar_f16(bits) : scalar_bf16(bits);
}

template <Storage Type>
inline Vec load_floats(const unsigned char* p) {
  if constexpr (Type == Storage::kF32) return vload(reinterpret_cast<const float*>(p));
  if constexpr (Type == Storage::kF16) return vload_f16(p);
  if constexpr (Type == Storage::kBF16) return vload_bf16(p);
}

template <Storage Type>
constexpr std::int64_t float_bytes() {
  return Type == Storage::kF32 ? 4 : 2;
}

template <Storage Type>
inline Vec load_floats_n(const unsigned char* p, std::int64_t n) {
  unsigned char copy[4 * kLanes] = {};
  __builtin_memcpy(copy, p, static_cast<std::size_t>(n * float_bytes<Type>()));
  return load_floats<Type>(copy);
}
