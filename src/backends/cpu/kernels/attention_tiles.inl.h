// Attention of many queries in float32, for prefill: kMr rows at a time. Scores and outputs are
// products of the gemm tile: S = Q K^T with K packed as a panel, then O += P V with V widened to
// float32. Included inside an anonymous namespace of an ISA unit.

static_assert(kKeys % kNr == 0, "whole panels");
constexpr int kTileQueryRows = kMostRows / kMr * kMr;

// Parts of the scratch memory of attention_tiles.
struct TileScratch {
  float* queries;  // [tiles][head_dim, kMr] (+ a vector that pack_tile may overwrite)
  RunningRows running;
  float* keys;         // [kKeys / kNr][head_dim rounded up, kNr]
  float* values;       // [columns / kNr][kKeys, kNr]; columns: head_dim rounded up to kNr
  float* scores;       // [kMr, kKeys]
  float* rows;         // [kNr, head_dim rounded up]
  std::int64_t depth;  // head_dim rounded up to kLanes
};

inline std::int64_t lay_out(std::int64_t head_dim, float* memory, TileScratch* s) {
  const std::int64_t columns = round_up(head_dim, kNr);
  s->depth = round_up(head_dim, kLanes);
  ScratchPlan plan(memory);
  s->queries = plan.floats(kTileQueryRows * head_dim + kLanes);
  s->running = RunningRows(plan, kTileQueryRows, columns);
  s->keys = plan.floats(kKeys * s->depth);
  s->values = plan.floats(kKeys * columns);
  s->scores = plan.floats(kMr * kKeys);
  s->rows = plan.floats(kNr * s->depth);
  return plan.size();
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
  const float* q = s.queries + first_row * t.head_dim;
  for (std::int64_t j = 0; j < n; j += kNr) {
    const TileOutput out = {s.scores + j, kKeys, kNr, nullptr, false};
    tile<1, kMr>(rows, q, s.keys + j * s.depth, t.head_dim, out);
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    s.running.weigh(t, first_row + i, begin, n, s.scores + i * kKeys);
  }
  const std::int64_t columns = s.running.columns;
  for (std::int64_t d = 0; d < t.head_dim; d += kNr) {
    const TileOutput out = {s.running.outputs + first_row * columns + d, columns, kNr, nullptr,
                            true};
    tile<kKeys, 1>(rows, s.scores, s.values + d * kKeys, n, out);
  }
}

void attention_tiles(const AttentionTask& t) {
  TileScratch s;
  lay_out(t.head_dim, t.scratch, &s);
  pack_queries(t, t.t_count * t.group, s);
  // Columns behind head_dim take part in the products; they must not hold NaN.
  for (std::int64_t i = 0; i < kKeys * s.running.columns; ++i) s.values[i] = 0;
  attend_blocks<kMr>(
      t, s.running, [&](std::int64_t begin, std::int64_t n) { pack_keys_values(t, begin, n, s); },
      [&](std::int64_t first_row, std::int64_t rows, std::int64_t begin, std::int64_t n) {
        attend_tile(t, first_row, rows, begin, n, s);
      });
}
