// Weighted sums of values for a few query rows (the heads of a group):
//
//   for each key: load C vectors of its value; for each of H heads: broadcast its weight, C
//   multiply-adds; H x C sums stay in registers over a block of keys
//
// Integer values stay codes: the weights that come in are already times the key's scale, and what
// the offsets add is the same for all of a row (attention_rows.inl.h).
// Included inside an anonymous namespace of an ISA unit.

constexpr int kValueHeads = kTileSums / 2;  // heads of a tile

// Sums of a tile's heads: H rows of weights, `weight_stride` apart, and H rows of output.
struct ValueTask {
  const float* weights;
  std::int64_t weight_stride;
  float* out;
  std::int64_t out_stride;
};

template <int H, int C, class Load>
inline void add_values(const ValueTask& t, std::int64_t keys, std::int64_t d, const Load& load) {
  Vec sums[H][C];
#pragma GCC unroll 8
  for (int h = 0; h < H; ++h) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sums[h][c] = vload(t.out + h * t.out_stride + d + c * kLanes);
  }
  for (std::int64_t j = 0; j < keys; ++j) {
    Vec values[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) values[c] = load(j, d + c * kLanes);
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) {
      const Vec weight = vset(t.weights[h * t.weight_stride + j]);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sums[h][c] = vfma(weight, values[c], sums[h][c]);
    }
  }
#pragma GCC unroll 8
  for (int h = 0; h < H; ++h) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) vstore(t.out + h * t.out_stride + d + c * kLanes, sums[h][c]);
  }
}

// Whole vectors from column d on, C at a time and then fewer; returns where they end.
template <KvStorage Type, int H, int C>
inline std::int64_t value_columns(const ValueTask& t, const KvRows& v, std::int64_t d) {
  for (; d + C * kLanes <= v.head_dim; d += C * kLanes) {
    add_values<H, C>(t, v.count, d, [&](std::int64_t j, std::int64_t at) {
      if (at == 0) prefetch_row<Type>(v, j + kKeysAhead);
      return load_kv<Type>(v.data + j * v.stride, at);
    });
  }
  if constexpr (C > 1) {
    return value_columns<Type, H, C / 2>(t, v, d);
  } else {
    return d;
  }
}

template <KvStorage Type, int H>
inline void value_tile(const ValueTask& t, const KvRows& v) {
  constexpr int kColumns = kTileSums / H < 8 ? kTileSums / H : 8;
  const std::int64_t d = value_columns<Type, H, kColumns>(t, v, 0);
  if (const std::int64_t n = v.head_dim - d; n > 0) {
    add_values<H, 1>(t, v.count, d, [&](std::int64_t j, std::int64_t at) {
      return load_kv_n<Type>(v.data + j * v.stride, at, n);
    });
  }
}

template <KvStorage Type>
inline void value_heads(int heads, const ValueTask& t, const KvRows& v) {
  if constexpr (kValueHeads == 8) {
    if (heads == 8) return value_tile<Type, 8>(t, v);
  }
  if (heads == 4) return value_tile<Type, 4>(t, v);
  if (heads == 2) return value_tile<Type, 2>(t, v);
  value_tile<Type, 1>(t, v);
}
