// Attention of one query of each head of a group by products of words: 32 bits of neighbours, 4
// codes or 2 bf16, times 32 bits of what they are weighed with. Every byte is taken apart once for
// all heads, and nothing is widened to float32.
//
//   scores:  32 keys transposed to words of neighbouring columns, a lane a key; for each word: load
//   2
//            vectors; for each of 8 heads: broadcast a word of q, 2 products
//   weights: scores to base-2 exponentials, then rounded
//   values:  64 keys interleaved to words of neighbouring keys, a lane a column; for each word:
//   load
//            4 vectors; for each of 4 heads: broadcast a word of weights, 4 products
//
// What words are and how they are rounded is said by a class (attention_codes.inl.h,
// attention_halves.inl.h).
// Bound: the products, and as much again for everything around them (docs/kernels.md). Included
// inside an anonymous namespace of an ISA unit of AVX-512.

using Words = __m512i;

constexpr int kScoreTile = 8;               // rows of queries of a tile of scores
constexpr int kValueTile = 4;               // heads of a tile of values
constexpr std::int64_t kPanelKeys = 32;     // of a panel of keys
constexpr std::int64_t kValueKeys = 64;     // of a panel of values
constexpr std::int64_t kPanelColumns = 64;  // of a panel of values
constexpr int kColumnVectors = static_cast<int>(kPanelColumns / kLanes);
constexpr int kKeyVectors = static_cast<int>(kValueKeys / kLanes);

inline Words load_words(const void* p) { return _mm512_loadu_si512(p); }
inline void store_words(void* p, Words v) { _mm512_storeu_si512(p, v); }
inline Words broadcast_word(const void* p) {
  int word;
  __builtin_memcpy(&word, p, sizeof(word));
  return _mm512_set1_epi32(word);
}

// Parts of the scratch memory, whatever the words are.
struct DotScratch {
  unsigned char* queries;  // tiles of [words of a row][kScoreTile] words: see query_words()
  float* scores;           // [heads, kScoreStride]; then weights
  std::uint32_t* panel;    // of keys [words of a row][kPanelKeys], or of values [][kPanelColumns]
  unsigned char* weights;  // [heads] rows of kValueKeys rounded weights
  unsigned char* rows;     // [kValueKeys] rows: the last ones, and zeros

  DotScratch() = default;
  // Rows of a cache of `row_bytes`, words of which hold `word_values` values; the query of a head
  // is `query_parts` rows.
  DotScratch(ScratchPlan& plan, std::int64_t head_dim, std::int64_t group, std::int64_t row_bytes,
             std::int64_t word_values, std::int64_t query_parts) {
    const std::int64_t heads = padded_heads(group);
    const std::int64_t words = head_dim / word_values;
    const std::int64_t key_words = words * kPanelKeys;
    const std::int64_t value_words = kValueKeys / word_values * kPanelColumns;
    queries = bytes(plan, 4 * heads * query_parts * words);
    scores = plan.floats(heads * kScoreStride);
    panel = plan.pairs(key_words > value_words ? key_words : value_words);
    weights = bytes(plan, heads * 4 * kValueKeys / word_values);
    rows = bytes(plan, kValueKeys * row_bytes);
  }

  static unsigned char* bytes(ScratchPlan& plan, std::int64_t count) {
    return reinterpret_cast<unsigned char*>(plan.floats((count + 3) / 4));
  }
};

// Brings rows that are read some time later near, some lines at every step: the products leave the
// memory idle. Behind the last row it goes on, where the next part begins; that is harmless.
class RowsAhead {
 public:
  // What lies kAhead bytes behind rows [first, first + n).
  RowsAhead(const KvRows& rows, std::int64_t first, std::int64_t n)
      : at_(rows.data + first * rows.stride + kAhead), end_(at_ + n * rows.stride) {}

  void step() {
    if (at_ >= end_) return;
    __builtin_prefetch(at_);
    __builtin_prefetch(at_ + kLine);
    at_ += 2 * kLine;
  }
  void finish() {
    while (at_ < end_) step();
  }

 private:
  static constexpr std::int64_t kAhead = 16384;  // measured
  static constexpr std::int64_t kLine = 64;
  const unsigned char* at_;
  const unsigned char* end_;
};

// Rows [first, first + n), those behind the last one zeros.
template <KvStorage Type>
inline KvRows block_of_rows(const KvRows& rows, std::int64_t first, std::int64_t n,
                            unsigned char* memory) {
  const KvRows block = {rows.data + first * rows.stride, rows.stride, n, rows.head_dim};
  if (first + n <= rows.count) return block;
  const std::int64_t stride = kv_header<Type>() + kv_bytes<Type>(rows.head_dim);
  const auto bytes = static_cast<std::size_t>(stride);
  __builtin_memset(memory, 0, static_cast<std::size_t>(n) * bytes);
  for (std::int64_t i = 0; first + i < rows.count; ++i) {
    __builtin_memcpy(memory + i * stride, block.data + i * rows.stride, bytes);
  }
  return {memory, stride, n, rows.head_dim};
}

// r[4 n + c] for rows 4n ... 4n + 3: word c of each quarter of them.
template <int N>
inline void transpose_quarters(__m512 (&r)[N]) {
#pragma GCC unroll 16
  for (int i = 0; i < N; i += 4) {
    const __m512 low01 = _mm512_unpacklo_ps(r[i], r[i + 1]);
    const __m512 high01 = _mm512_unpackhi_ps(r[i], r[i + 1]);
    const __m512 low23 = _mm512_unpacklo_ps(r[i + 2], r[i + 3]);
    const __m512 high23 = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
    r[i] = _mm512_shuffle_ps(low01, low23, 0x44);
    r[i + 1] = _mm512_shuffle_ps(low01, low23, 0xee);
    r[i + 2] = _mm512_shuffle_ps(high01, high23, 0x44);
    r[i + 3] = _mm512_shuffle_ps(high01, high23, 0xee);
  }
}

// 16 rows of 16 words, transposed.
__attribute__((noinline)) void pack_words(const unsigned char* rows, std::int64_t stride,
                                          std::uint32_t* panel) {
  __m512 r[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(rows + i * stride);
  transpose_quarters(r);
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(r[c], r[c + 4], 0x88);
    const __m512 b = _mm512_shuffle_f32x4(r[c], r[c + 4], 0xdd);
    const __m512 d = _mm512_shuffle_f32x4(r[c + 8], r[c + 12], 0x88);
    const __m512 e = _mm512_shuffle_f32x4(r[c + 8], r[c + 12], 0xdd);
    std::uint32_t* out = panel + c * kPanelKeys;
    _mm512_storeu_ps(out, _mm512_shuffle_f32x4(a, d, 0x88));
    _mm512_storeu_ps(out + 4 * kPanelKeys, _mm512_shuffle_f32x4(b, e, 0x88));
    _mm512_storeu_ps(out + 8 * kPanelKeys, _mm512_shuffle_f32x4(a, d, 0xdd));
    _mm512_storeu_ps(out + 12 * kPanelKeys, _mm512_shuffle_f32x4(b, e, 0xdd));
  }
}

// 2^x for x <= 0 (0 below -150), relative error 8e-5: little beside the rounding of weights, 2e-3.
inline Vec vexp2_coarse(Vec x) {
  constexpr float kExp2[] = {9.999252187e-01f, 6.958335376e-01f, 2.260671637e-01f,
                             7.802451679e-02f};
  x = vmax(vset(-200.0f), x);
  return _mm512_scalef_ps(polynomial(_mm512_reduce_ps(x, 1), kExp2), x);
}

// Scores -> weights, not yet rounded; zeros behind the last key.
inline void weigh_part(float* scores, std::int64_t keys, float* largest, float* sum) {
  const std::int64_t padded = round_up(keys, kValueKeys);
  for (std::int64_t j = keys; j < padded; ++j) scores[j] = -__builtin_inff();
  Vec tops[kKeyVectors];
  Vec totals[kKeyVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kKeyVectors; ++i) tops[i] = vset(-__builtin_inff());
  for (std::int64_t j = 0; j < padded; j += kValueKeys) {
#pragma GCC unroll 4
    for (int i = 0; i < kKeyVectors; ++i) tops[i] = vmax(tops[i], vload(scores + j + i * kLanes));
  }
  *largest = vhmax(vmax(vmax(tops[0], tops[1]), vmax(tops[2], tops[3])));
  constexpr float kLog2E = 1.44269504f;
  const Vec shift = vset(-*largest * kLog2E);
#pragma GCC unroll 4
  for (int i = 0; i < kKeyVectors; ++i) totals[i] = vzero();
  for (std::int64_t j = 0; j < padded; j += kValueKeys) {
#pragma GCC unroll 4
    for (int i = 0; i < kKeyVectors; ++i) {
      float* at = scores + j + i * kLanes;
      const Vec p = vexp2_coarse(vfma(vload(at), vset(kLog2E), shift));
      totals[i] = vadd(totals[i], p);
      vstore(at, p);
    }
  }
  *sum = vsum(vadd(vadd(totals[0], totals[1]), vadd(totals[2], totals[3])));
}

// Word 0 of a row of queries; the words of a row are kScoreTile words apart.
inline unsigned char* query_words(const DotScratch& s, std::int64_t row, std::int64_t words) {
  return s.queries + 4 * (row / kScoreTile * kScoreTile * words + row % kScoreTile);
}

// Products of heads [g, g + H) with the panel of keys [key, key + kPanelKeys).
template <int H, class Products>
inline void score_tile(const Products& p, std::int64_t words, std::int64_t g, std::int64_t key,
                       RowsAhead& ahead) {
  constexpr int kSplit = Products::kQueryParts;
  constexpr int kRows = H * kSplit;
  typename Products::Sums sums[kRows][2];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) sums[i][0] = sums[i][1] = Products::zero();
  const std::uint32_t* panel = p.s.panel;
  const unsigned char* q = query_words(p.s, g * kSplit, words);
  for (std::int64_t w = 0; w < words; ++w, panel += kPanelKeys, q += 4 * kScoreTile) {
    ahead.step();
    const Words low = load_words(panel);
    const Words high = load_words(panel + kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Words query = broadcast_word(q + 4 * i);
      sums[i][0] = Products::with_keys(sums[i][0], low, query);
      sums[i][1] = Products::with_keys(sums[i][1], high, query);
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < 2; ++v) {
    const auto finish = p.finish_scores(v);
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) {
      vstore(p.s.scores + (g + h) * kScoreStride + key + v * kLanes,
             finish(sums[h * kSplit][v], sums[h * kSplit + kSplit - 1][v], g + h));
    }
  }
}

// Products of the weights of heads [g, g + H) with the panel of values, added to rows of `out`.
template <int H, class Products>
inline void value_tile(const Products& p, std::int64_t g, float* out, std::int64_t stride,
                       RowsAhead& ahead) {
  constexpr std::int64_t kWords = kValueKeys / Products::kWordValues;
  typename Products::Sums sums[H][kColumnVectors];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumnVectors; ++c) sums[h][c] = Products::zero();
  }
  const std::uint32_t* panel = p.s.panel;
  const unsigned char* weights = p.s.weights + 4 * kWords * g;
  for (std::int64_t w = 0; w < kWords; ++w, panel += kPanelColumns, weights += 4) {
    ahead.step();
    Words values[kColumnVectors];
#pragma GCC unroll 4
    for (int c = 0; c < kColumnVectors; ++c) values[c] = load_words(panel + c * kLanes);
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
      const Words weight = broadcast_word(weights + 4 * kWords * h);
#pragma GCC unroll 4
      for (int c = 0; c < kColumnVectors; ++c) {
        sums[h][c] = Products::with_values(sums[h][c], weight, values[c]);
      }
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumnVectors; ++c) {
      float* to = out + h * stride + c * kLanes;
      vstore(to, p.add_values(vload(to), sums[h][c], g + h, c));
    }
  }
}

// fn<H>(g) over the heads of a group, at most kMost (a power of two) at a time.
template <int kMost, class Fn>
inline void for_heads(std::int64_t group, const Fn& fn) {
  for (std::int64_t g = 0; g < group;) {
    const int heads = tile_heads(group - g, kMost);
    if constexpr (kMost >= 8) {
      if (heads == 8) fn.template operator()<8>(g);
    }
    if (heads == 4) fn.template operator()<4>(g);
    if (heads == 2) fn.template operator()<2>(g);
    if (heads == 1) fn.template operator()<1>(g);
    g += heads;
  }
}

// Scores of all keys of a part.
template <class Products>
inline void score_keys(const AttentionTask& t, const KvRows& k, Products& p) {
  for (std::int64_t g = 0; g < t.group; ++g) p.round_query(t, g);
  for (std::int64_t key = 0; key < k.count; key += kPanelKeys) {
    RowsAhead ahead(k, key, kPanelKeys);
    p.pack_keys(block_of_rows<Products::kType>(k, key, kPanelKeys, p.s.rows));
    for_heads<kScoreTile / Products::kQueryParts>(t.group, [&]<int H>(std::int64_t g) {
      score_tile<H>(p, t.head_dim / Products::kWordValues, g, key, ahead);
    });
    ahead.finish();
  }
}

// Adds weighted values of all keys of a part to out [heads, head_dim], whose columns are in the
// order of panels.
template <class Products>
inline void add_weighted(const AttentionTask& t, const KvRows& v, float* out, Products& p) {
  for (std::int64_t key = 0; key < v.count; key += kValueKeys) {
    RowsAhead ahead(v, key, kValueKeys);
    const KvRows block = block_of_rows<Products::kType>(v, key, kValueKeys, p.s.rows);
    const std::int64_t rows = v.count - key < kValueKeys ? v.count - key : kValueKeys;
    p.take_numbers(block);
    for (std::int64_t d = 0; d < t.head_dim; d += kPanelColumns) {
      p.pack_values(block, d, rows);
      if (d == 0) p.round_weights(t.group, key);
      for_heads<kValueTile>(t.group, [&]<int H>(std::int64_t g) {
        value_tile<H>(p, g, out + g * t.head_dim + d, t.head_dim, ahead);
      });
    }
    ahead.finish();
  }
}

// One part of the keys. Products is made of the task and its scratch memory.
template <class Products>
void attend_part(const AttentionTask& t, KeyRange range, float* part_memory) {
  ScratchPlan plan(t.scratch);
  Products p(plan, t.head_dim, t.group);
  const Part part = part_at(part_memory, t.head_dim, t.group);
  const std::int64_t keys = range.end - range.begin;
  const KvRows k = {t.k + range.begin * t.k_row_bytes, t.k_row_bytes, keys, t.head_dim};
  const KvRows v = {t.v + range.begin * t.v_row_bytes, t.v_row_bytes, keys, t.head_dim};
  score_keys(t, k, p);
  for (std::int64_t g = 0; g < t.group; ++g) {
    float* scores = p.s.scores + g * kScoreStride;
    adjust(t, g, range.begin, keys, scores);
    weigh_part(scores, keys, part.largest + g, part.sums + g);
  }
  const std::int64_t outputs = padded_heads(t.group) * t.head_dim;
  for (std::int64_t i = 0; i < outputs; i += kLanes) vstore(part.out + i, vzero());
  p.start_values(t.group);
  add_weighted(t, v, part.out, p);
  for (std::int64_t g = 0; g < t.group; ++g) {
    for (std::int64_t d = 0; d < t.head_dim; d += kPanelColumns) {
      p.finish_values(g, part.out + g * t.head_dim + d);
    }
  }
}

template <class Products>
inline std::int64_t dot_scratch(std::int64_t head_dim, std::int64_t group) {
  ScratchPlan plan(nullptr);
  Products p(plan, head_dim, group);
  return plan.size();
}
