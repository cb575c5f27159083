// The compiler's own vectors, as wide as those of the level, and what is done with all their lanes:
// one source for every level.
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

// step(load, i) for every kLanes elements from i on; behind the last whole ones, `load` fills up
// with zeros, which no step minds.
template <class Step>
inline void each_load(const float* w, std::int64_t length, const Step& step) {
  std::int64_t i = 0;
  for (; i + kLanes <= length; i += kLanes) step(load_as<Floats>(w + i));
  if (i < length) step(load_first<Floats>(w + i, length - i));
}

// A length of one vector that the compiler knows.
struct OneVector {
  constexpr operator std::int64_t() const { return kLanes; }
};

// to[i] = step(from[i]), kLanes at a time.
template <class In, class Out, class From, class To, class Step>
inline void each_lane(const From* from, std::int64_t length, To* to, const Step& step) {
  std::int64_t i = 0;
  for (; i + kLanes <= length; i += kLanes) {
    const Out out = step(load_as<In>(from + i));
    __builtin_memcpy(to + i, &out, sizeof(out));
  }
  if (i < length) {
    store_first<Out>(to + i, step(load_first<In>(from + i, length - i)), length - i);
  }
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
  return value - V{};  // folds to the value, -0 too
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

// The lanes `by` further on, round about.
template <class V>
inline V rotated(V v, int by) {
  static constexpr std::int32_t kLane[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                           12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23};
  return shuffled(v, load_as<Whole>(kLane + by));
}

template <class V, class Join>
inline auto joined(V v, const Join& join) {
#pragma GCC unroll 4
  for (int by = kLanes / 2; by > 0; by /= 2) v = join(v, rotated(v, by));
  return v[0];
}

// Whether some lane is not 0.
inline bool any_lane(Whole v) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask(bits_as<__m512i>(v), bits_as<__m512i>(v)) != 0;
#else
  return joined(v, [](Whole a, Whole b) { return a | b; }) != 0;
#endif
}

// Lane i is joined(v[i]): halves of two vectors meet, then of two of those.
template <int Count = kLanes, class V, class Join>
inline V joined_each(const V* v, const Join& join) {
  if constexpr (Count == 1) {
    return v[0];
  } else {
    constexpr int kHalf = Count / 2;
    const V a = joined_each<kHalf>(v, join), b = joined_each<kHalf>(v + kHalf, join);
    static constexpr std::int32_t kLane[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const Whole lane = load_as<Whole>(kLane), upper = (lane & kHalf) != 0;
    return join(upper ? b : a, shuffled(a, b, (lane ^ kHalf) + (upper & kLanes)));
  }
}
