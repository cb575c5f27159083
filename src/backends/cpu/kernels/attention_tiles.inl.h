// Attention of a block of queries against one head of keys and values, for prefill: rows are
// (query, head of the group) pairs, kMr at a time; keys in blocks of kKeys. Scores and outputs are
// products of the gemm tile: S = Q K^T with K packed as a panel, then O += P V with V widened to
// float32. Included inside an anonymous namespace of an ISA unit.

constexpr int kKeys = 128;
static_assert(kKeys % kNr == 0, "whole panels");
constexpr int kTiles = 192 / kMr;

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
      kv_decode(t.kv_type, t.k + (begin + j + i) * t.k_row_bytes, t.head_dim, s.rows + i * s.depth);
    }
    pack_panel(s.rows, s.depth, rows, t.head_dim, s.keys + j * s.depth);
  }
  for (std::int64_t j = 0; j < n; ++j) {
    kv_decode(t.kv_type, t.v + (begin + j) * t.v_row_bytes, t.head_dim, s.rows);
    for (std::int64_t d = 0; d < t.head_dim; d += kLanes) {
      vstore(s.values + d / kNr * kKeys * kNr + j * kNr + d % kNr, vload(s.rows + d));
    }
  }
}

// One tile of rows against keys [begin, begin + n), which are packed.
inline void attend_tile(const AttentionTask& t, std::int64_t first_row, std::int64_t rows,
                        std::int64_t begin, std::int64_t n, const TileScratch& s) {
  const KeyRange low = visible_keys(t, t.t_begin + first_row / t.group);
  const KeyRange high = visible_keys(t, t.t_begin + (first_row + rows - 1) / t.group);
  if (low.begin >= begin + n || high.end <= begin) return;
  if (high.end < begin + n) n = high.end - begin;

  const float* q = s.queries + first_row * t.head_dim;
  for (std::int64_t j = 0; j < n; j += kNr) {
    const TileOutput out = {s.scores + j, kKeys, kNr, nullptr, false};
    tile<1, kMr>(rows, q, s.keys + j * s.depth, t.head_dim, out);
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::int64_t row = first_row + i;
    const KeyRange range = visible_keys(t, t.t_begin + row / t.group);
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
  const std::int64_t begin = visible_keys(t, t.t_begin).begin;
  const std::int64_t end = visible_keys(t, t.t_begin + t.t_count - 1).end;
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
