// Attention of a block of queries against one head of keys and values, with a running softmax
// (Milakov and Gimelshein 2018) so that no score row is ever whole.
//
// attention_tiles: rows are (query, head of the group) pairs, kMr at a time; keys in blocks of
// kKeys. Scores and outputs are products of the gemm tile: S = Q K^T with K packed as a panel, then
// O += P V with P read in place.
// attention_rows: for a few rows (decoding), where packing would cost more than it saves.
// Included inside an anonymous namespace of an ISA unit.

constexpr int kKeys = 128;
static_assert(kKeys % kNr == 0, "whole panels");
constexpr int kTiles = 192 / kMr;

// The keys [begin, end) that query t may see.
struct KeyRange {
  std::int64_t begin;
  std::int64_t end;
};

inline KeyRange visible(const AttentionTask& t, std::int64_t query) {
  const std::int64_t position = t.q_offset + query;
  KeyRange range = {0, t.kv_rows};
  if (t.causal && position + 1 < range.end) range.end = position + 1;
  if (t.window > 0 && position - t.window + 1 > 0) range.begin = position - t.window + 1;
  return range;
}

inline std::int64_t round_up(std::int64_t n, std::int64_t step) {
  return (n + step - 1) / step * step;
}

// Parts of the scratch memory of attention_tiles.
struct TileScratch {
  float* queries;        // [tiles][head_dim, kMr] (+ a vector that pack_tile may overwrite)
  float* outputs;        // [tiles * kMr, columns]
  float* largest;        // [tiles * kMr]
  float* sums;           // [tiles * kMr]
  float* keys;           // [kKeys / kNr][head_dim rounded up, kNr]
  float* values;         // [columns / kNr][kKeys, kNr]
  float* scores;         // [kMr, kKeys]
  float* rows;           // [kNr, head_dim rounded up]
  std::int64_t columns;  // head_dim rounded up to kNr
  std::int64_t depth;    // head_dim rounded up to kLanes
};

inline std::int64_t lay_out(std::int64_t head_dim, float* memory, TileScratch* s) {
  const std::int64_t rows = kTiles * kMr;
  s->columns = round_up(head_dim, kNr);
  s->depth = round_up(head_dim, kLanes);
  std::int64_t at = 0;
  const auto take = [&](std::int64_t count) {
    float* part = memory == nullptr ? nullptr : memory + at;
    at += round_up(count, kLanes);
    return part;
  };
  s->queries = take(rows * head_dim + kLanes);
  s->outputs = take(rows * s->columns);
  s->largest = take(rows);
  s->sums = take(rows);
  s->keys = take(kKeys * s->depth);
  s->values = take(kKeys * s->columns);
  s->scores = take(kMr * kKeys);
  s->rows = take(kNr * s->depth);
  return at;
}

std::int64_t attention_scratch(std::int64_t head_dim) {
  TileScratch s;
  return lay_out(head_dim, nullptr, &s);
}

template <Storage Type>
inline void widen_row(const unsigned char* p, std::int64_t count, float* out) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    vstore(out + i, load_floats<Type>(p + i * float_bytes<Type>()));
  if (i < count) {  // the rest of the vector becomes zeros
    vstore(out + i, load_floats_n<Type>(p + i * float_bytes<Type>(), count - i));
  }
}

inline void widen(Storage type, const unsigned char* p, std::int64_t count, float* out) {
  if (type == Storage::kF16) return widen_row<Storage::kF16>(p, count, out);
  if (type == Storage::kBF16) return widen_row<Storage::kBF16>(p, count, out);
  widen_row<Storage::kF32>(p, count, out);
}

inline const float* query_row(const AttentionTask& t, std::int64_t row) {
  return t.q + (t.t_begin + row / t.group) * t.q_row_stride + row % t.group * t.q_head_stride;
}

inline float* output_row(const AttentionTask& t, std::int64_t row) {
  return t.out + (t.t_begin + row / t.group) * t.out_row_stride + row % t.group * t.head_dim;
}

inline void pack_queries(const AttentionTask& t, std::int64_t rows, const TileScratch& s) {
  for (std::int64_t first_row = 0; first_row < rows; first_row += kMr) {
    const std::int64_t n = rows - first_row < kMr ? rows - first_row : kMr;
    for (std::int64_t i = 0; i < n; ++i) {
      const float* q = query_row(t, first_row + i);
      for (std::int64_t d = 0; d < t.head_dim; d += kLanes) {
        const std::int64_t left = t.head_dim - d < kLanes ? t.head_dim - d : kLanes;
        vstore(s.rows + i * s.depth + d, vmul(vset(t.scale), vload_n(q + d, left)));
      }
    }
    pack_tile(s.rows, s.depth, n, t.head_dim, s.queries + first_row * t.head_dim);
  }
}

// Keys [begin, begin + n) as panels, and their values.
inline void pack_keys_values(const AttentionTask& t, std::int64_t begin, std::int64_t n,
                             const TileScratch& s) {
  for (std::int64_t j = 0; j < n; j += kNr) {
    const std::int64_t rows = n - j < kNr ? n - j : kNr;
    for (std::int64_t i = 0; i < rows; ++i) {
      widen(t.kv_type, t.k + (begin + j + i) * t.k_row_bytes, t.head_dim, s.rows + i * s.depth);
    }
    pack_panel(s.rows, s.depth, rows, t.head_dim, s.keys + j * s.depth);
  }
  for (std::int64_t j = 0; j < n; ++j) {
    widen(t.kv_type, t.v + (begin + j) * t.v_row_bytes, t.head_dim, s.rows);
    for (std::int64_t d = 0; d < t.head_dim; d += kLanes) {
      vstore(s.values + d / kNr * kKeys * kNr + j * kNr + d % kNr, vload(s.rows + d));
    }
  }
}

// Caps and biases scores of the keys key + [0, n).
inline void adjust(const AttentionTask& t, std::int64_t head, std::int64_t key, std::int64_t n,
                   float* scores) {
  if (t.softcap > 0) {
    const Vec cap = vset(t.softcap);
    for (std::int64_t j = 0; j < n; j += kLanes) {
      vstore(scores + j, vmul(cap, vtanh(vdiv(vload(scores + j), cap))));
    }
  }
  if (t.alibi_slopes != nullptr) {
    const Vec slope = vset(t.alibi_slopes[head]);
    for (std::int64_t j = 0; j < n; j += kLanes) {
      const Vec at = vadd(vset(static_cast<float>(key + j)), viota());
      vstore(scores + j, vfma(slope, at, vload(scores + j)));
    }
  }
}

// The running softmax of one row over one block of keys: scores become weights (zero outside
// [from, to)), and what was summed before is scaled to the new maximum.
inline void soften(float* scores, std::int64_t from, std::int64_t to, std::int64_t n,
                   float* largest, float* sum, float* output, std::int64_t columns) {
  const std::int64_t padded = round_up(n, kLanes);
  for (std::int64_t j = 0; j < from; ++j) scores[j] = -__builtin_inff();
  for (std::int64_t j = to; j < padded; ++j) scores[j] = -__builtin_inff();
  Vec top = vset(*largest);
  for (std::int64_t j = 0; j < padded; j += kLanes) top = vmax(top, vload(scores + j));
  const float new_largest = vhmax(top);
  if (new_largest > *largest) {
    const Vec shrink = vexp(vset(*largest - new_largest));
    for (std::int64_t d = 0; d < columns; d += kLanes)
      vstore(output + d, vmul(shrink, vload(output + d)));
    float factor[kLanes];
    vstore(factor, shrink);
    *sum *= factor[0];
    *largest = new_largest;
  }
  const Vec shift = vset(*largest);
  Vec total = vzero();
  for (std::int64_t j = 0; j < padded; j += kLanes) {
    const Vec p = vexp(vsub(vload(scores + j), shift));
    total = vadd(total, p);
    vstore(scores + j, p);
  }
  *sum += vsum(total);
}

inline void write_output(const float* output, float sum, std::int64_t head_dim, float* out) {
  const Vec scale = vset(sum == 0 ? 0.0f : 1.0f / sum);  // a row that sees no key gives zeros
  for (std::int64_t d = 0; d < head_dim; d += kLanes) {
    const std::int64_t n = head_dim - d < kLanes ? head_dim - d : kLanes;
    vstore_n(out + d, vmul(scale, vload(output + d)), n);
  }
}

// One tile of rows against keys [begin, begin + n), which are packed.
inline void attend_tile(const AttentionTask& t, std::int64_t first_row, std::int64_t rows,
                        std::int64_t begin, std::int64_t n, const TileScratch& s) {
  const KeyRange low = visible(t, t.t_begin + first_row / t.group);
  const KeyRange high = visible(t, t.t_begin + (first_row + rows - 1) / t.group);
  if (low.begin >= begin + n || high.end <= begin) return;
  if (high.end < begin + n) n = high.end - begin;

  const float* q = s.queries + first_row * t.head_dim;
  for (std::int64_t j = 0; j < n; j += kNr) {
    const TileOutput out = {s.scores + j, kKeys, kNr, nullptr, false};
    tile<1, kMr>(rows, q, s.keys + j * s.depth, t.head_dim, out);
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t row = first_row + i;
    const KeyRange range = visible(t, t.t_begin + row / t.group);
    const std::int64_t from = range.begin <= begin ? 0 : range.begin - begin;
    const std::int64_t to = range.end >= begin + n ? n : range.end - begin;
    float* scores = s.scores + i * kKeys;
    if (from >= to) {
      for (std::int64_t j = 0; j < n; ++j) scores[j] = 0;
      continue;
    }
    adjust(t, row % t.group, begin, n, scores);
    soften(scores, from, to, n, s.largest + row, s.sums + row, s.outputs + row * s.columns,
           s.columns);
  }
  for (std::int64_t d = 0; d < t.head_dim; d += kNr) {
    const TileOutput out = {s.outputs + first_row * s.columns + d, s.columns, kNr, nullptr, true};
    tile<kKeys, 1>(rows, s.scores, s.values + d * kKeys, n, out);
  }
}

void attention_tiles(const AttentionTask& t) {
  TileScratch s;
  lay_out(t.head_dim, t.scratch, &s);
  const std::int64_t rows = t.t_count * t.group;
  pack_queries(t, rows, s);
  for (std::int64_t i = 0; i < round_up(rows, kMr) * s.columns; ++i) s.outputs[i] = 0;
  // Columns behind head_dim take part in the products; they must not hold NaN.
  for (std::int64_t i = 0; i < kKeys * s.columns; ++i) s.values[i] = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    s.largest[i] = -__builtin_inff();
    s.sums[i] = 0;
  }
  const std::int64_t begin = visible(t, t.t_begin).begin;
  const std::int64_t end = visible(t, t.t_begin + t.t_count - 1).end;
  for (std::int64_t key = begin; key < end; key += kKeys) {
    const std::int64_t n = end - key < kKeys ? end - key : kKeys;
    pack_keys_values(t, key, n, s);
    for (std::int64_t row = 0; row < rows; row += kMr) {
      attend_tile(t, row, rows - row < kMr ? rows - row : kMr, key, n, s);
    }
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    write_output(s.outputs + row * s.columns, s.sums[row], t.head_dim, output_row(t, row));
  }
}

// One query of each head of the group, over whole score rows [group, padded]. scratch: a widened
// row of keys or values, `group` output rows, the scores.
inline void attend_query(const AttentionTask& t, std::int64_t query) {
  const std::int64_t depth = round_up(t.head_dim, kLanes);
  float* wide = t.scratch;
  float* queries = wide + depth;
  float* outputs = queries + t.group * depth;
  float* scores = outputs + t.group * depth;
  const KeyRange range = visible(t, query);
  const std::int64_t n = range.end > range.begin ? range.end - range.begin : 0;
  const std::int64_t padded = round_up(n, kLanes);
  const float* q0 = t.q + query * t.q_row_stride;
  for (std::int64_t g = 0; g < t.group; ++g) {
    for (std::int64_t d = 0; d < depth; d += kLanes) {
      const std::int64_t left = t.head_dim - d < kLanes ? t.head_dim - d : kLanes;
      vstore(queries + g * depth + d,
             vmul(vset(t.scale), vload_n(q0 + g * t.q_head_stride + d, left)));
      vstore(outputs + g * depth + d, vzero());
    }
  }
  for (std::int64_t j = 0; j < n; ++j) {
    widen(t.kv_type, t.k + (range.begin + j) * t.k_row_bytes, t.head_dim, wide);
    for (std::int64_t g = 0; g < t.group; ++g) {
      Vec sum = vzero();
      for (std::int64_t d = 0; d < depth; d += kLanes) {
        sum = vfma(vload(queries + g * depth + d), vload(wide + d), sum);
      }
      scores[g * padded + j] = vsum(sum);
    }
  }
  float* out = t.out + query * t.out_row_stride;
  for (std::int64_t g = 0; g < t.group && n > 0; ++g) {
    float largest = -__builtin_inff();
    float sum = 0;
    for (std::int64_t j = n; j < padded; ++j) scores[g * padded + j] = 0;
    adjust(t, g, range.begin, n, scores + g * padded);
    soften(scores + g * padded, 0, n, n, &largest, &sum, outputs + g * depth, depth);
    const float inverse = 1.0f / sum;
    for (std::int64_t j = 0; j < n; ++j) scores[g * padded + j] *= inverse;
  }
  for (std::int64_t j = 0; j < n; ++j) {
    widen(t.kv_type, t.v + (range.begin + j) * t.v_row_bytes, t.head_dim, wide);
    for (std::int64_t g = 0; g < t.group; ++g) {
      const Vec p = vset(scores[g * padded + j]);
      for (std::int64_t d = 0; d < depth; d += kLanes) {
        float* o = outputs + g * depth + d;
        vstore(o, vfma(p, vload(wide + d), vload(o)));
      }
    }
  }
  for (std::int64_t g = 0; g < t.group; ++g) {
    write_output(outputs + g * depth, 1, t.head_dim, out + g * t.head_dim);
  }
}

void attention_rows(const AttentionTask& t) {
  for (std::int64_t i = 0; i < t.t_count; ++i) attend_query(t, t.t_begin + i);
}
