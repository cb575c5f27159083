// Scores of a few query rows (the heads of a group) against many keys, without packing:
//
//   for kLanes / H keys: for each vector of d: load each key's, load each head's: H * keys sums
//   kLanes sums of one product each -> vsum_each -> one vector of scores
//
// Integer keys stay codes: q . (offset + scale * code) = offset * sum(q) + scale * (q . code), so
// the loop loads codes as floats and two multiply-adds a score bring in the row's numbers.
// Included inside an anonymous namespace of an ISA unit.

constexpr int kScoreHeads = kLanes < 8 ? 4 : 8;  // heads of a tile
constexpr int kTileSums = kLanes < 16 ? 8 : 16;  // vectors of sums: the rest are operands

template <KvStorage Type, int H>
struct ScoreTile {
  static constexpr int kKeysAtOnce = kLanes / H;

  // Vectors [d, d + kLanes) of all keys and heads into the sums.
  template <class Load>
  static void add(const float* queries, std::int64_t depth, const Load& load, Vec (&sums)[kLanes]) {
    Vec keys[kKeysAtOnce];
#pragma GCC unroll 16
    for (int j = 0; j < kKeysAtOnce; ++j) keys[j] = load(j);
#pragma GCC unroll 16
    for (int h = 0; h < H; ++h) {
      const Vec q = vload(queries + h * depth);
#pragma GCC unroll 16
      for (int j = 0; j < kKeysAtOnce; ++j) {
        sums[h * kKeysAtOnce + j] = vfma(q, keys[j], sums[h * kKeysAtOnce + j]);
      }
    }
  }

  // queries: H rows `depth` apart; scores: H rows `stride` apart.
  static void run(const float* queries, std::int64_t depth, const KvRows& k, float* scores,
                  std::int64_t stride) {
    for (std::int64_t first = 0; first < k.count; first += kKeysAtOnce) {
      const std::int64_t left = k.count - first;
      const unsigned char* keys[kKeysAtOnce];  // behind the end the last key again
#pragma GCC unroll 16
      for (int j = 0; j < kKeysAtOnce; ++j) {
        keys[j] = k.data + (j < left ? first + j : k.count - 1) * k.stride;
      }
#pragma GCC unroll 16
      for (int j = 0; j < kKeysAtOnce; ++j) prefetch_row<Type>(k, first + j + kKeysAhead);
      Vec sums[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) sums[i] = vzero();
      std::int64_t d = 0;
      for (; d + kLanes <= k.head_dim; d += kLanes) {
        add(
            queries + d, depth, [&](int j) { return load_kv<Type>(keys[j], d); }, sums);
      }
      if (const std::int64_t n = k.head_dim - d; n > 0) {
        add(
            queries + d, depth, [&](int j) { return load_kv_n<Type>(keys[j], d, n); }, sums);
      }
      float found[kLanes];
      vstore(found, vsum_each(sums));
#pragma GCC unroll 16
      for (int h = 0; h < H; ++h) {  // rows of scores have room for a whole step
        __builtin_memcpy(scores + h * stride + first, found + h * kKeysAtOnce,
                         kKeysAtOnce * sizeof(float));
      }
    }
  }
};

template <KvStorage Type>
inline void score_heads(int heads, const float* queries, std::int64_t depth, const KvRows& k,
                        float* scores, std::int64_t stride) {
  if constexpr (kScoreHeads == 8) {
    if (heads == 8) return ScoreTile<Type, 8>::run(queries, depth, k, scores, stride);
  }
  if (heads == 4) return ScoreTile<Type, 4>::run(queries, depth, k, scores, stride);
  if (heads == 2) return ScoreTile<Type, 2>::run(queries, depth, k, scores, stride);
  ScoreTile<Type, 1>::run(queries, depth, k, scores, stride);
}
