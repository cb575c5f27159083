// Rows of a key/value cache from floats, bit by bit as encode_kv_row() of formats/kv_type.h makes
// them. Included inside an anonymous namespace of an ISA unit.

// Values [i, i + kLanes) of x; behind the end its first one, which changes no range.
inline Vec load_padded(const float* x, std::int64_t i, std::int64_t count) {
  if (i + kLanes <= count) return vload(x + i);
  float padded[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) padded[lane] = x[i + lane < count ? i + lane : 0];
  return vload(padded);
}

#define KV_FIT_FUNCTION inline
#include "formats/kv_fit.inl.h"
#undef KV_FIT_FUNCTION

// Scale and offset of an integer row over its full range.
inline FitScale scale_of(const float* x, std::int64_t count, float top) {
  Vec high = vset(-__builtin_inff());
  Vec low = high;        // the largest of the negated values
  Vec damage = vzero();  // NaN once a value is not finite
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const Vec v = load_padded(x, i, count);
    low = vmax(low, vsub(vzero(), v));
    high = vmax(high, v);
    damage = vfma(v, vzero(), damage);
  }
  const float offset = 0.0f - vhmax(low);
  const float scale = (vhmax(high) - offset) / top;
  if (!(vsum(damage) == 0) || !__builtin_isfinite(scale)) {
    return {__builtin_nanf(""), __builtin_nanf(""), 0};
  }
  const float inverse = 1.0f / scale;
  if (!__builtin_isfinite(inverse)) return {0, offset, 0};
  return {scale, offset, inverse};
}

// Positions of the values of a row, with zeros behind them; returns their sum.
inline float take_positions(const float* x, std::int64_t count, const FitScale& full,
                            float* positions) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const Vec steps = vmul(vsub(load_padded(x, i, count), vset(full.offset)), vset(full.to_code));
    vstore(positions + i, vmin(vround(vmul(steps, vset(kFitUnits))), vset(kFitTop * kFitUnits)));
  }
  Vec sum = vzero();
  for (std::int64_t i = count; i % kLanes != 0; ++i) positions[i] = 0;
  for (std::int64_t i = 0; i < count; i += kLanes) sum = vadd(sum, vload(positions + i));
  return vsum(sum);
}

inline void add_codes(const float* positions, std::int64_t count, const FitRange& range,
                      FitSums* sums) {
  Vec codes = vzero();
  Vec squares = vzero();
  Vec products = vzero();
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const Vec position = vload(positions + i);
    const Vec steps = vmul(vsub(position, vset(range.below)), vset(range.to_code));
    const Vec code = vmax(vmin(vround(steps), vset(kFitTop)), vzero());
    codes = vadd(codes, code);
    squares = vfma(code, code, squares);
    products = vfma(code, position, products);
  }
  sums->codes = vsum(codes);
  sums->squares = vsum(squares);
  sums->products = vsum(products);
}

// The scale and offset of an int4 row (formats/kv_fit.inl.h).
inline FitScale fitted(const float* x, std::int64_t count, const FitScale& full) {
  if (full.to_code == 0 || count > kFitMost) return full;
  float positions[kFitMost];
  static_assert(kFitMost % kLanes == 0);
  FitSums tried = {static_cast<float>(count), take_positions(x, count, full, positions), 0, 0, 0};
  FitSums best = tried;
  float most = 0;
  for (int r = 0; r < kFitRanges; ++r) {
    add_codes(positions, count, fit_range(r), &tried);
    const float explained = fit_explained(tried);
    if (explained <= most) continue;
    most = explained;
    best = tried;
  }
  return fit_scale(best, full);
}

inline void encode_codes(const float* x, std::int64_t count, bool nibbles, unsigned char* row) {
  const float top = nibbles ? 15.0f : 255.0f;
  FitScale range = scale_of(x, count, top);
  if (nibbles) range = fitted(x, count, range);
  const RowScale s = {range.scale, range.offset};
  __builtin_memcpy(row, &s, sizeof(s));
  unsigned char* out = row + kKvHeader;
  for (std::int64_t i = 0; i < count; i += kLanes) {
    unsigned char codes[kLanes] = {};
    if (range.to_code != 0) {
      const Vec steps = vmul(vsub(load_padded(x, i, count), vset(s.offset)), vset(range.to_code));
      vstore_u8(codes, vmax(vmin(vround(steps), vset(top)), vzero()));
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
