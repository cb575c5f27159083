// The compiler's own vectors, as wide as those of the level: one source of integer work on lanes.
// Included inside an anonymous namespace of an ISA unit.

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef std::uint32_t Unsigned __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t Whole __attribute__((vector_size(4 * kLanes)));
typedef std::uint8_t Bytes __attribute__((vector_size(kLanes)));

template <class To, class From>
inline To bits_as(From v) {
  return reinterpret_cast<To>(v);
}
template <class V, class T>
inline V load_as(const T* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
template <class V, class T>
inline V load_first(const T* p, std::int64_t n) {
  V v{};
  for (std::int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
template <class V, class T>
inline void store_first(T* p, V v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) p[i] = v[i];
}

// GCC 12 widens bytes one by one unless it is told how.
inline Whole widened(Bytes bytes) {
#if defined(__AVX512F__)
  return bits_as<Whole>(_mm512_cvtepu8_epi32(bits_as<__m128i>(bytes)));
#elif defined(__AVX2__)
  __m128i half{};
  __builtin_memcpy(&half, &bytes, sizeof(bytes));
  return bits_as<Whole>(_mm256_cvtepu8_epi32(half));
#else
  return __builtin_convertvector(bytes, Whole);
#endif
}

// The same of signed bytes.
inline Whole widened_signed(Bytes bytes) { return (widened(bytes) ^ 0x80) - 0x80; }

template <class V>
inline V lanes_of(decltype(V{}[0] + 0) value) {
  return V{} + value;
}

// Lane i is lane index[i] of v, modulo their number.
template <class V>
inline V shuffled(V v, Whole index) {
#if defined(__clang__)  // has no shuffle by a vector
  V to;
  for (int i = 0; i < kLanes; ++i) to[i] = v[index[i] & (kLanes - 1)];
  return to;
#else
  return __builtin_shuffle(v, index);
#endif
}

// Lane i is lane index[i] of a and, behind it, b, modulo their number.
template <class V>
inline V shuffled(V a, V b, Whole index) {
#if defined(__clang__)
  V to;
  for (int i = 0; i < kLanes; ++i) {
    to[i] = (index[i] & kLanes ? b : a)[index[i] & (kLanes - 1)];
  }
  return to;
#else
  return __builtin_shuffle(a, b, index);
#endif
}
