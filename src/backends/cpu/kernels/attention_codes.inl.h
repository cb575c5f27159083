// Attention of one query of each head of a group over a cache of codes, by products of bytes
// (attention_dots.inl.h).
//
// Queries are rounded by head, to bytes over int4 and to two bytes over int8, where one byte would
// cost as much as the rounding of keys; weights of the softmax, times the scales of their keys, by
// head and block of 64 keys. What rounding leaves of a block's sum of weights goes to the mean of
// its values, so that many small weights are not lost beside a large one. Included inside an
// anonymous namespace of an ISA unit.

// The numbers in front of rows.
inline void copy_numbers(const KvRows& rows, double* numbers) {
  const unsigned char* row = rows.data;
  for (std::int64_t j = 0; j < rows.count; j += 8, row += 8 * rows.stride) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) __builtin_memcpy(numbers + j + i, row + i * rows.stride, 8);
  }
}

inline void load_numbers(const double* numbers, Vec* scale, Vec* offset) {
  const Vec low = _mm512_castpd_ps(_mm512_loadu_pd(numbers));
  const Vec high = _mm512_castpd_ps(_mm512_loadu_pd(numbers + 8));
  const Ints even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  *scale = _mm512_permutex2var_ps(low, even, high);
  *offset = _mm512_permutex2var_ps(low, _mm512_add_epi32(even, _mm512_set1_epi32(1)), high);
}

// op(a, b) of the lanes of each of 8 vectors: lane i of the result belongs to vector i.
template <class Op>
inline Vec reduce_each(const Vec (&a)[8], const Op& op) {
  Vec pairs[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    pairs[i] =
        op(_mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]), _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]));
  }
  const Vec low =
      op(_mm512_shuffle_ps(pairs[0], pairs[1], 0x44), _mm512_shuffle_ps(pairs[0], pairs[1], 0xee));
  const Vec high =
      op(_mm512_shuffle_ps(pairs[2], pairs[3], 0x44), _mm512_shuffle_ps(pairs[2], pairs[3], 0xee));
  const Vec both = op(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
  // quarters 0, 1: of `low`; 2, 3: of `high`
  const Vec all = op(both, _mm512_shuffle_f32x4(both, both, 0xb1));
  return _mm512_shuffle_f32x4(all, all, 0x88);
}

// Whole numbers of [0, 255] as bytes.
inline Ints pack_bytes(const Ints (&v)[4]) {
  const Ints quarters =
      _mm512_packus_epi16(_mm512_packus_epi32(v[0], v[1]), _mm512_packus_epi32(v[2], v[3]));
  return _mm512_permutexvar_epi32(
      _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), quarters);
}

template <KvStorage Type>
class CodeProducts {
 public:
  using Sums = Ints;
  static constexpr KvStorage kType = Type;
  static constexpr std::int64_t kWordValues = 4;
  static constexpr int kQueryParts = Type == KvStorage::kInt8 ? 2 : 1;

  CodeProducts(ScratchPlan& plan, std::int64_t head_dim, std::int64_t group)
      : s(plan, head_dim, group, kKvHeader + kv_bytes<Type>(head_dim), kWordValues, kQueryParts),
        head_dim_(head_dim),
        query_scales_(plan.floats(padded_heads(group))),
        query_sums_(plan.floats(padded_heads(group))),
        numbers_(reinterpret_cast<double*>(plan.floats(2 * kValueKeys))),
        means_(plan.floats(kPanelColumns)),
        steps_(plan.floats(padded_heads(group))),
        rests_(plan.floats(padded_heads(group))),
        offsets_(plan.floats(padded_heads(group) * kLanes)) {}

  static Sums zero() { return izero(); }
  static Sums with_keys(Sums sum, Words keys, Words query) { return idot(sum, keys, query); }
  static Sums with_values(Sums sum, Words weights, Words values) {
    return idot(sum, weights, values);
  }

  void round_query(const AttentionTask& t, std::int64_t g) const;

  void pack_keys(const KvRows& block) const {
    copy_numbers(block, numbers_);
    pack_code_keys<Type>(block.data + kKvHeader, block.stride, head_dim_, s.panel);
  }

  // What makes scores of the sums of a head and vector v of the keys of a panel.
  auto finish_scores(int v) const {
    Vec scale;
    Vec offset;
    load_numbers(numbers_ + v * kLanes, &scale, &offset);
    return [=, this](Sums first, Sums last, std::int64_t head) {
      const Sums sums = kQueryParts == 1 ? first : iadd(_mm512_slli_epi32(first, 7), last);
      const Vec products = vmul(ifloat(sums), vset(query_scales_[head]));
      return vfma(scale, products, vmul(offset, vset(query_sums_[head])));
    };
  }

  void start_values(std::int64_t group) const {
    for (std::int64_t g = 0; g < group; ++g) vstore(offsets_ + g * kLanes, vzero());
  }
  void take_numbers(const KvRows& block) const { copy_numbers(block, numbers_); }
  void round_weights(std::int64_t group, std::int64_t key) const {
    for (std::int64_t g = 0; g < group; g += kRoundedHeads) round_heads(g, key);
  }
  void pack_values(const KvRows& block, std::int64_t d, std::int64_t rows) const {
    pack_code_values<Type>(block.data + kKvHeader + kv_bytes<Type>(d), block.stride, rows, s.panel,
                           means_);
  }
  Vec add_values(Vec out, Sums sums, std::int64_t head, int c) const {
    const Vec with_rest = vfma(vset(rests_[head]), vload(means_ + c * kLanes), out);
    return vfma(vset(steps_[head]), ifloat(sums), with_rest);
  }
  void finish_values(std::int64_t head, float* out) const {
    order_columns<Type>(vsum(vload(offsets_ + head * kLanes)), out);
  }

  DotScratch s;

 private:
  static constexpr int kRoundedHeads = 8;  // at once

  // 16 codes of a row of queries, from column d on.
  void put_query(std::int64_t row, std::int64_t d, Ints codes) const;
  void round_heads(std::int64_t g, std::int64_t key) const;

  std::int64_t head_dim_;
  float* query_scales_;  // [heads]
  float* query_sums_;    // [heads]
  double* numbers_;      // [kValueKeys] scale and offset of a row
  float* means_;         // [kPanelColumns]
  float* steps_;         // [heads] of rounded weights
  float* rests_;         // [heads] that rounding leaves of a block's weights
  float* offsets_;       // [heads, kLanes] weighted
};

template <KvStorage Type>
void CodeProducts<Type>::round_query(const AttentionTask& t, std::int64_t g) const {
  const float* q = t.q + t.t_begin * t.q_row_stride + g * t.q_head_stride;
  Vec top = vzero();
  Vec sum = vzero();
  for (std::int64_t d = 0; d < t.head_dim; d += kLanes) {
    const Vec v = vload(q + d);
    top = vmax(top, vabs(v));
    sum = vadd(sum, v);
  }
  const float largest = vhmax(top);
  constexpr float kTop = kQueryParts == 1 ? 127.0f : 127.0f * 128.0f;
  query_scales_[g] = t.scale * largest / kTop;
  query_sums_[g] = t.scale * vsum(sum);
  const Vec inverse = vset(largest > 0 ? kTop / largest : 0.0f);
  for (std::int64_t d = 0; d < t.head_dim; d += kLanes) {
    const Ints codes = _mm512_cvtps_epi32(vmul(vload(q + d), inverse));
    if constexpr (kQueryParts == 1) {
      put_query(g, d, codes);
    } else {
      const Ints high = _mm512_srai_epi32(iadd(codes, _mm512_set1_epi32(64)), 7);
      put_query(2 * g, d, high);
      put_query(2 * g + 1, d, _mm512_sub_epi32(codes, _mm512_slli_epi32(high, 7)));
    }
  }
}

template <KvStorage Type>
void CodeProducts<Type>::put_query(std::int64_t row, std::int64_t d, Ints codes) const {
  const __m128i order = Type == KvStorage::kInt8
                            ? _mm_set_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
                            : _mm_set_epi8(15, 13, 11, 9, 14, 12, 10, 8, 7, 5, 3, 1, 6, 4, 2, 0);
  std::uint32_t words[4];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(words),
                   _mm_shuffle_epi8(_mm512_cvtsepi32_epi8(codes), order));
  unsigned char* out = query_words(s, row, head_dim_ / kWordValues);
#pragma GCC unroll 4
  for (int w = 0; w < 4; ++w) {
    __builtin_memcpy(out + (d + 4 * w) * kScoreTile, words + w, sizeof(words[w]));
  }
}

// Weights of heads [g, g + 8) for a block of keys, times the scales, to bytes.
template <KvStorage Type>
void CodeProducts<Type>::round_heads(std::int64_t g, std::int64_t key) const {
  const float* weights = s.scores + g * kScoreStride + key;
  Vec tops[kRoundedHeads];
  Vec sums[kRoundedHeads];
  Vec scales[kKeyVectors];
  Vec offsets[kKeyVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kKeyVectors; ++i) {
    load_numbers(numbers_ + i * kLanes, scales + i, offsets + i);
    if constexpr (kLowered<Type> != 0)
      offsets[i] = vfma(vset(kLowered<Type>), scales[i], offsets[i]);
  }
#pragma GCC unroll 8
  for (int h = 0; h < kRoundedHeads; ++h) {
    Vec start = vload(offsets_ + (g + h) * kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < kKeyVectors; ++i) {
      const Vec weight = vload(weights + h * kScoreStride + i * kLanes);
      const Vec scaled = vmul(weight, scales[i]);
      start = vfma(weight, offsets[i], start);
      tops[h] = i == 0 ? scaled : vmax(tops[h], scaled);
      sums[h] = i == 0 ? scaled : vadd(sums[h], scaled);
    }
    vstore(offsets_ + (g + h) * kLanes, start);
  }
  const Vec largest = reduce_each(tops, [](Vec a, Vec b) { return vmax(a, b); });
  const Vec step = vmul(largest, vset(1.0f / 255.0f));
  const Vec inverse = vselect_less(vzero(), largest, vdiv(vset(255.0f), largest), vzero());
  float inverses[kLanes];
  vstore_n(steps_ + g, step, kRoundedHeads);
  vstore(inverses, inverse);
#pragma GCC unroll 8
  for (int h = 0; h < kRoundedHeads; ++h) {
    const Vec to_code = vset(inverses[h]);
    Ints codes[kKeyVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kKeyVectors; ++i) {
      const Vec scaled = vmul(vload(weights + h * kScoreStride + i * kLanes), scales[i]);
      codes[i] = _mm512_cvtps_epi32(vmul(scaled, to_code));
    }
    const Ints bytes = pack_bytes(codes);
    istore(s.weights + (g + h) * kValueKeys, bytes);
    const Ints total = idot(izero(), bytes, iset8(1));
    sums[h] = vsub(sums[h], vmul(vset(steps_[g + h]), ifloat(total)));
  }
  vstore_n(rests_ + g, reduce_each(sums, [](Vec a, Vec b) { return vadd(a, b); }), kRoundedHeads);
}

bool attention_codes_fit(const AttentionTask& t) {
  return (t.kv_type == KvStorage::kInt8 || t.kv_type == KvStorage::kInt4) &&
         t.head_dim % kPanelColumns == 0;
}

std::int64_t attention_codes_scratch(std::int64_t head_dim, std::int64_t group) {
  return dot_scratch<CodeProducts<KvStorage::kInt8>>(head_dim, group);  // the larger rows
}

void attention_codes(const AttentionTask& t, KeyRange keys, float* part) {
  if (t.kv_type == KvStorage::kInt8) {
    attend_part<CodeProducts<KvStorage::kInt8>>(t, keys, part);
  } else {
    attend_part<CodeProducts<KvStorage::kInt4>>(t, keys, part);
  }
}
