// Scores of many heads that share keys. Reading a key for each head and summing across lanes costs
// more than the products once there are several heads; so kNr keys are turned into a panel, a lane
// a key, and the products are those of a matrix:
//
//   for each 32 bits of a key (2 bf16, 4 or 8 codes), of kNr keys at once: load;
//     for each value in them: kNv vectors of it; for each of H heads: broadcast q, kNv
//     multiply-adds
//
// What is transposed is the stored bits, 32 at a time, so codes of 4 bits cost an eighth of floats;
// for floats of 32 bits it does not pay, nor for f16, which would have to become those first.
// Included inside an anonymous namespace of an ISA unit.

constexpr std::int64_t kPanelGroup = 5;       // from so many heads on panels are faster (measured)
constexpr int kPanelHeads = kTileSums / kNv;  // heads of a tile

// Bits of a value in the panel; 32: none is made of such keys.
template <KvStorage Type>
constexpr int panel_bits() {
  if (Type == KvStorage::kBF16) return 16;
  if (Type == KvStorage::kInt8) return 8;
  if (Type == KvStorage::kInt4) return 4;
  return 32;
}
template <KvStorage Type>
inline bool panels_pay(std::int64_t group, std::int64_t head_dim) {
  return panel_bits<Type>() < 32 && group >= kPanelGroup && head_dim * panel_bits<Type>() % 32 == 0;
}

// Floats of memory for a panel and the rows that it is made of.
inline std::int64_t panel_floats(std::int64_t head_dim) {
  return 2 * kNr * round_up(head_dim, kLanes);
}

// Rows [first, first + kNr) of k (the last one again behind the end), `depth` words apart.
template <KvStorage Type>
inline void stage_keys(const KvRows& k, std::int64_t first, std::int64_t depth, float* staging) {
  const std::int64_t words = k.head_dim * panel_bits<Type>() / 32;
  for (std::int64_t i = 0; i < kNr; ++i, staging += depth) {
    const std::int64_t index = first + i < k.count ? first + i : k.count - 1;
    const unsigned char* row = k.data + index * k.stride + kv_header<Type>();
    const float* bits = reinterpret_cast<const float*>(row);
    std::int64_t w = 0;
    for (; w + kLanes <= words; w += kLanes) vstore(staging + w, vload(bits + w));
    if (w < words) vstore(staging + w, vload_n(bits + w, words - w));
  }
}

// Keys [first, first + kNr) as a panel [words, kNr].
template <KvStorage Type>
inline void pack_keys(const KvRows& k, std::int64_t first, float* panel, float* staging) {
  const std::int64_t words = k.head_dim * panel_bits<Type>() / 32;
  const std::int64_t depth = round_up(k.head_dim, kLanes);
  for (std::int64_t i = 0; i < kNr; ++i) prefetch_row<Type>(k, first + i + kKeysAhead);
  // Stored rows serve as they are when whole vectors of them can be read: the last of a row may
  // reach into the rows behind it.
  const std::int64_t behind = (k.count - first - kNr) * k.stride;
  if (k.stride % 4 == 0 && behind >= (words % kLanes == 0 ? 0 : 4 * kLanes)) {
    const unsigned char* rows = k.data + first * k.stride + kv_header<Type>();
    return pack_panel(reinterpret_cast<const float*>(rows), k.stride / 4, kNr, words, panel);
  }
  stage_keys<Type>(k, first, depth, staging);
  pack_panel(staging, depth, kNr, words, panel);
}

// Scores of H heads: queries [head_dim, kPanelHeads], scores H rows `stride` apart.
template <int Bits, int H>
inline void score_panel(const float* queries, const float* panel, std::int64_t head_dim,
                        float* scores, std::int64_t stride) {
  constexpr int kFields = 32 / Bits;
  Vec sums[H][kNv];
#pragma GCC unroll 16
  for (int h = 0; h < H; ++h) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) sums[h][v] = vzero();
  }
  for (std::int64_t d = 0; d < head_dim; d += kFields, panel += kNr) {
#pragma GCC unroll 8
    for (int i = 0; i < kFields; ++i, queries += kPanelHeads) {
      Vec keys[kNv];
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) keys[v] = vfield<Bits>(vload(panel + v * kLanes), i);
#pragma GCC unroll 16
      for (int h = 0; h < H; ++h) {
        const Vec q = vset(queries[h]);
#pragma GCC unroll 2
        for (int v = 0; v < kNv; ++v) sums[h][v] = vfma(q, keys[v], sums[h][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int h = 0; h < H; ++h) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) vstore(scores + h * stride + v * kLanes, sums[h][v]);
  }
}

template <int Bits>
inline void score_panel_heads(int heads, const float* queries, const float* panel,
                              std::int64_t head_dim, float* scores, std::int64_t stride) {
  if constexpr (kPanelHeads == 8) {
    if (heads == 8) return score_panel<Bits, 8>(queries, panel, head_dim, scores, stride);
  }
  if (heads == 4) return score_panel<Bits, 4>(queries, panel, head_dim, scores, stride);
  if (heads == 2) return score_panel<Bits, 2>(queries, panel, head_dim, scores, stride);
  score_panel<Bits, 1>(queries, panel, head_dim, scores, stride);
}

// queries: tiles of [head_dim, kPanelHeads]; scores: rows of the group, and what a tile has more.
template <KvStorage Type>
inline void score_panels(std::int64_t group, const float* queries, const KvRows& k, float* scratch,
                         float* scores, std::int64_t stride) {
  constexpr int kBits = panel_bits<Type>();
  float* staging = scratch + kNr * round_up(k.head_dim, kLanes);
  for (std::int64_t j = 0; j < k.count; j += kNr) {
    pack_keys<Type>(k, j, scratch, staging);
    for (std::int64_t g = 0; g < group;) {
      const std::int64_t in_tile = g % kPanelHeads;
      const float* q = queries + (g - in_tile) * k.head_dim + in_tile;
      const int heads = tile_heads(group - g, static_cast<int>(kPanelHeads - in_tile));
      score_panel_heads<kBits>(heads, q, scratch, k.head_dim, scores + g * stride + j, stride);
      g += heads;
    }
  }
}

// Rows of queries, `depth` apart -> tiles of [head_dim, kPanelHeads].
inline void pack_heads(const float* rows, std::int64_t depth, std::int64_t heads,
                       std::int64_t head_dim, float* tiles) {
  for (std::int64_t h = 0; h < heads; ++h) {
    float* out = tiles + h / kPanelHeads * kPanelHeads * head_dim + h % kPanelHeads;
    for (std::int64_t d = 0; d < head_dim; ++d) out[d * kPanelHeads] = rows[h * depth + d];
  }
}
