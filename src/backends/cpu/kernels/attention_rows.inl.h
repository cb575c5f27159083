// Attention of one query of each head of a group, for decoding: whole rows of scores over a part of
// the keys, so that a long context is cut into tasks of equal size (Dao et al. 2023,
// flash-decoding) and every byte of keys and values is read from memory once, whatever the group.
// Parts are cut at the same keys and merged in the same order however many threads there are.
// Bound: memory while the group is small (up to 4 heads of bf16 on a wide core), multiply-adds
// beyond. Included inside an anonymous namespace of an ISA unit.

constexpr std::int64_t kBlockKeys = 64;  // keys or values that stay in the first-level cache

// Parts of the scratch memory of attention_rows.
struct RowScratch {
  float* queries;  // [heads, depth], times the scale
  float* packed;   // the same as tiles for panels of keys
  float* scores;   // [heads, kScoreStride]
  float* scales;   // [kScoreStride] of rows of codes
  float* offsets;  // the same
  float* panel;    // panel_floats(head_dim)
};

std::int64_t attention_row_scratch(std::int64_t head_dim, std::int64_t group) {
  return padded_heads(group) * (2 * round_up(head_dim, kLanes) + kScoreStride) + 2 * kScoreStride +
         panel_floats(head_dim);
}

inline RowScratch lay_out_rows(const AttentionTask& t) {
  const std::int64_t queries = padded_heads(t.group) * round_up(t.head_dim, kLanes);
  float* scores = t.scratch + 2 * queries;
  float* scales = scores + padded_heads(t.group) * kScoreStride;
  float* offsets = scales + kScoreStride;
  return {t.scratch, t.scratch + queries, scores, scales, offsets, offsets + kScoreStride};
}

inline void load_queries(const AttentionTask& t, const RowScratch& s) {
  const std::int64_t depth = round_up(t.head_dim, kLanes);
  const float* q0 = t.q + t.t_begin * t.q_row_stride;
  for (std::int64_t g = 0; g < padded_heads(t.group); ++g) {
    for (std::int64_t d = 0; d < depth; d += kLanes) {
      Vec q = vzero();
      if (g < t.group) {
        const std::int64_t left = t.head_dim - d < kLanes ? t.head_dim - d : kLanes;
        q = vmul(vset(t.scale), vload_n(q0 + g * t.q_head_stride + d, left));
      }
      vstore(s.queries + g * depth + d, q);
    }
  }
}

inline void load_scales(const KvRows& rows, const RowScratch& s) {
  for (std::int64_t j = 0; j < rows.count; ++j) {
    const RowScale row = row_scale(rows.data + j * rows.stride);
    s.scales[j] = row.scale;
    s.offsets[j] = row.offset;
  }
}

// Products with codes become products with keys.
inline void fold_scales(const RowScratch& s, const float* query, std::int64_t depth,
                        std::int64_t keys, float* scores) {
  Vec sum = vzero();
  for (std::int64_t d = 0; d < depth; d += kLanes) sum = vadd(sum, vload(query + d));
  const Vec total = vset(vsum(sum));
  for (std::int64_t j = 0; j < keys; j += kLanes) {
    const Vec product = vmul(vload(s.scales + j), vload(scores + j));
    vstore(scores + j, vfma(vload(s.offsets + j), total, product));
  }
}

// Weights of values become weights of codes; returns what the offsets add to every column.
inline float fold_offsets(const RowScratch& s, std::int64_t keys, float* weights) {
  Vec sum = vzero();
  for (std::int64_t j = 0; j < keys; j += kLanes) {
    const std::int64_t n = keys - j < kLanes ? keys - j : kLanes;
    const Vec weight = vload_n(weights + j, n);
    sum = vfma(vload_n(s.offsets + j, n), weight, sum);
    vstore(weights + j, vmul(vload_n(s.scales + j, n), weight));
  }
  return vsum(sum);
}

// Calls fn(first head, heads of the tile, first key, keys) over blocks of keys.
template <class Fn>
inline void for_each_tile(std::int64_t keys, std::int64_t group, int most, const Fn& fn) {
  for (std::int64_t j = 0; j < keys; j += kBlockKeys) {
    const std::int64_t n = keys - j < kBlockKeys ? keys - j : kBlockKeys;
    for (std::int64_t g = 0; g < group;) {
      const int heads = tile_heads(group - g, most);
      fn(g, heads, j, n);
      g += heads;
    }
  }
}

template <KvStorage Type>
void attention_rows_of(const AttentionTask& t, KeyRange range, float* part_memory) {
  const RowScratch s = lay_out_rows(t);
  const Part part = part_at(part_memory, t.head_dim, t.group);
  const std::int64_t depth = round_up(t.head_dim, kLanes);
  const std::int64_t keys = range.end - range.begin;
  const KvRows k = {t.k + range.begin * t.k_row_bytes, t.k_row_bytes, keys, t.head_dim};
  const KvRows v = {t.v + range.begin * t.v_row_bytes, t.v_row_bytes, keys, t.head_dim};
  const auto block = [](const KvRows& rows, std::int64_t begin, std::int64_t count) {
    return KvRows{rows.data + begin * rows.stride, rows.stride, count, rows.head_dim};
  };

  load_queries(t, s);
  if (panels_pay<Type>(t.group, t.head_dim)) {
    pack_heads(s.queries, depth, padded_heads(t.group), t.head_dim, s.packed);
    score_panels<Type>(t.group, s.packed, k, s.panel, s.scores, kScoreStride);
  } else {
    for_each_tile(keys, t.group, kScoreHeads,
                  [&](std::int64_t g, int heads, std::int64_t j, std::int64_t n) {
                    score_heads<Type>(heads, s.queries + g * depth, depth, block(k, j, n),
                                      s.scores + g * kScoreStride + j, kScoreStride);
                  });
  }
  for (std::int64_t j = 0; j < keys && j < kKeysAhead; ++j) prefetch_row<Type>(v, j);
  if constexpr (has_codes<Type>()) {
    load_scales(k, s);
    for (std::int64_t g = 0; g < t.group; ++g) {
      fold_scales(s, s.queries + g * depth, depth, keys, s.scores + g * kScoreStride);
    }
    load_scales(v, s);
  }
  for (std::int64_t g = 0; g < padded_heads(t.group); ++g) {
    float* scores = s.scores + g * kScoreStride;
    float* out = part.out + g * depth;
    float start = 0;
    if (g < t.group) {
      part.largest[g] = -__builtin_inff();
      part.sums[g] = 0;
      adjust(t, g, range.begin, keys, scores);
      soften(scores, 0, keys, keys, part.largest + g, part.sums + g, out, 0);
      if constexpr (has_codes<Type>()) start = fold_offsets(s, keys, scores);
    }
    for (std::int64_t d = 0; d < depth; d += kLanes) vstore(out + d, vset(start));
  }
  for_each_tile(keys, t.group, kValueHeads,
                [&](std::int64_t g, int heads, std::int64_t j, std::int64_t n) {
                  const ValueTask task = {s.scores + g * kScoreStride + j, kScoreStride,
                                          part.out + g * depth, depth};
                  value_heads<Type>(heads, task, block(v, j, n));
                });
}

bool attention_rows_fit(const AttentionTask&) { return true; }

void attention_rows(const AttentionTask& t, KeyRange keys, float* part) {
  with_kv_type(t.kv_type, [&](auto tag) { attention_rows_of<tag.kType>(t, keys, part); });
}

// The factor of each part for kLanes heads from g on, where their sums were.
inline void weigh_parts(float* parts, std::int64_t count, const AttentionTask& t, std::int64_t g) {
  const std::int64_t stride = attention_part_floats(t.head_dim, t.group);
  const auto stats = [&](std::int64_t i) {
    return part_at(parts + i * stride, t.head_dim, t.group);
  };
  Vec largest = vset(-__builtin_inff());
  for (std::int64_t i = 0; i < count; ++i) largest = vmax(largest, vload(stats(i).largest + g));
  Vec total = vzero();
  for (std::int64_t i = 0; i < count; ++i) {
    const Part part = stats(i);
    const Vec factor = vexp(vsub(vload(part.largest + g), largest));
    total = vfma(factor, vload(part.sums + g), total);
    vstore(part.largest + g, factor);
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const Part part = stats(i);
    vstore(part.sums + g, vdiv(vload(part.largest + g), total));
  }
}

void attention_merge(const AttentionTask& t, float* parts, std::int64_t count) {
  const std::int64_t stride = attention_part_floats(t.head_dim, t.group);
  const std::int64_t depth = round_up(t.head_dim, kLanes);
  for (std::int64_t g = 0; g < t.group; g += kLanes) weigh_parts(parts, count, t, g);
  for (std::int64_t g = 0; g < t.group; ++g) {
    float* out = t.out + t.t_begin * t.out_row_stride + g * t.head_dim;
    for (std::int64_t d = 0; d < t.head_dim; d += kLanes) {
      Vec sum = vzero();
      for (std::int64_t i = 0; i < count; ++i) {
        const Part part = part_at(parts + i * stride, t.head_dim, t.group);
        sum = vfma(vset(part.sums[g]), vload(part.out + g * depth + d), sum);
      }
      vstore_n(out + d, sum, t.head_dim - d < kLanes ? t.head_dim - d : kLanes);
    }
  }
}
