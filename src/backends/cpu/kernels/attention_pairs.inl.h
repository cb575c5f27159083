// Attention of many queries on products of bf16 pairs: queries and softmax weights are rounded to
// bf16, keys and values are what a cache of bf16 holds (or, of codes, what those round to).
// kBf16Rows rows at a time.
//
//   S = Q K^T: K transposed to panels of pairs, as weights are
//   P = weights of the running softmax, rounded row by row
//   O += P V:  V as panels of pairs of neighbouring keys
//
// Included inside an anonymous namespace of an ISA unit.

static_assert(kKeys % kBf16PanelRows == 0, "whole panels");
constexpr int kPairQueryRows = kMostRows / kBf16Rows * kBf16Rows;

// Parts of the scratch memory.
struct PairScratch {
  std::uint16_t* queries;  // [kPairQueryRows, depth]
  RunningRows running;     // of `depth` columns
  std::uint32_t* keys;     // [kKeys / kBf16PanelRows][depth / 2, kBf16PanelRows]
  std::uint32_t* values;   // [depth / kBf16PanelRows][kKeys / 2, kBf16PanelRows]
  float* scores;           // [kBf16Rows, kKeys]
  std::uint16_t* weights;  // [kBf16Rows, kKeys]
  float* row;              // [depth]
  std::uint16_t* rows;     // [kBf16PanelRows, depth]
  std::int64_t depth;      // head_dim rounded up to kBf16Step
};

inline std::int64_t lay_out(std::int64_t head_dim, float* memory, PairScratch* s) {
  static_assert(kBf16Step == kBf16PanelRows);
  s->depth = round_up(head_dim, kBf16Step);
  ScratchPlan plan(memory);
  s->queries = plan.halves(kPairQueryRows * s->depth);
  s->running = RunningRows(plan, kPairQueryRows, s->depth);
  s->keys = plan.pairs(kKeys * s->depth / 2);
  s->values = plan.pairs(kKeys * s->depth / 2);
  s->scores = plan.floats(kBf16Rows * kKeys);
  s->weights = plan.halves(kBf16Rows * kKeys);
  s->row = plan.floats(s->depth);
  s->rows = plan.halves(kBf16PanelRows * s->depth);
  return plan.size();
}

std::int64_t attention_pairs_scratch(std::int64_t head_dim) {
  PairScratch s;
  return lay_out(head_dim, nullptr, &s);
}

// Some rows of a cache as rows of bf16.
struct HalfRows {
  const unsigned char* data;
  std::int64_t row_bytes;
};

inline HalfRows half_rows(KvStorage type, const unsigned char* rows, std::int64_t row_bytes,
                          std::int64_t count, std::int64_t head_dim, const PairScratch& s) {
  if (type == KvStorage::kBF16) return {rows, row_bytes};
  for (std::int64_t i = 0; i < count; ++i) {
    kv_decode(type, rows + i * row_bytes, head_dim, s.row);
    bf16_narrow(s.row, head_dim, s.rows + i * s.depth);
  }
  return {reinterpret_cast<const unsigned char*>(s.rows), 2 * s.depth};
}

inline void round_queries(const AttentionTask& t, std::int64_t rows, const PairScratch& s) {
  const Vec scale = vset(t.scale);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* q = query_row(t, r);
    std::int64_t d = 0;
    for (; d + kLanes <= t.head_dim; d += kLanes) vstore(s.row + d, vmul(scale, vload(q + d)));
    if (d < t.head_dim) vstore(s.row + d, vmul(scale, vload_n(q + d, t.head_dim - d)));
    bf16_narrow(s.row, t.head_dim, s.queries + r * s.depth);
  }
}

// Values of two neighbouring keys; `second` null: zeros.
inline void zip_values(const unsigned char* first, const unsigned char* second, std::int64_t count,
                       std::int64_t head_dim, std::uint32_t* out) {
  for (std::int64_t d = 0; d < count; d += kPairLanes) {
    const std::int64_t n = head_dim - d;
    pstore(out + d / kBf16PanelRows * (kKeys / 2) * kBf16PanelRows + d % kBf16PanelRows,
           pzip(first + 2 * d, second == nullptr ? nullptr : second + 2 * d, n));
  }
}

// Keys and values [begin, begin + n) as panels.
inline void pack_keys_values(const AttentionTask& t, std::int64_t begin, std::int64_t n,
                             const PairScratch& s) {
  for (std::int64_t j = 0; j < n; j += kBf16PanelRows) {
    const std::int64_t rows = n - j < kBf16PanelRows ? n - j : kBf16PanelRows;
    const HalfRows k =
        half_rows(t.kv_type, t.k + (begin + j) * t.k_row_bytes, t.k_row_bytes, rows, t.head_dim, s);
    bf16_pack(k.data, k.row_bytes, rows, t.head_dim, s.keys + j * s.depth / 2);
    const HalfRows v =
        half_rows(t.kv_type, t.v + (begin + j) * t.v_row_bytes, t.v_row_bytes, rows, t.head_dim, s);
    for (std::int64_t i = 0; i < rows; i += 2) {
      const unsigned char* first = v.data + i * v.row_bytes;
      zip_values(first, i + 1 < rows ? first + v.row_bytes : nullptr, s.depth, t.head_dim,
                 s.values + (j + i) / 2 * kBf16PanelRows);
    }
  }
}

// One tile of rows against keys [begin, begin + n), which are packed.
inline void attend_pairs(const AttentionTask& t, std::int64_t first_row, std::int64_t rows,
                         std::int64_t begin, std::int64_t n, const PairScratch& s) {
  const std::uint16_t* q = s.queries + first_row * s.depth;
  for (std::int64_t j = 0; j < n; j += kBf16PanelRows) {
    const TileOutput out = {s.scores + j, kKeys, kBf16PanelRows, nullptr, false};
    bf16_tile_rows(rows, q, s.depth, s.keys + j * s.depth / 2, s.depth, out);
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    s.running.weigh(t, first_row + i, begin, n, s.scores + i * kKeys);
    bf16_narrow(s.scores + i * kKeys, n, s.weights + i * kKeys);
  }
  for (std::int64_t d = 0; d < s.depth; d += kBf16PanelRows) {
    const TileOutput out = {s.running.outputs + first_row * s.depth + d, s.depth, kBf16PanelRows,
                            nullptr, true};
    bf16_tile_rows(rows, s.weights, kKeys, s.values + d * (kKeys / 2), round_up(n, 2), out);
  }
}

void attention_pairs(const AttentionTask& t) {
  PairScratch s;
  lay_out(t.head_dim, t.scratch, &s);
  round_queries(t, t.t_count * t.group, s);
  attend_blocks<kBf16Rows>(
      t, s.running, [&](std::int64_t begin, std::int64_t n) { pack_keys_values(t, begin, n, s); },
      [&](std::int64_t first_row, std::int64_t rows, std::int64_t begin, std::int64_t n) {
        attend_pairs(t, first_row, rows, begin, n, s);
      });
}
