// What kernels of attention for one query of each head of a group share: the rows of keys and
// values that they read, and the parts of the keys that are tasks of their own. Included inside an
// anonymous namespace of an ISA unit.

constexpr std::int64_t kPartKeys = 512;                    // of a task, at the most
constexpr std::int64_t kScoreStride = kPartKeys + kLanes;  // no power of two: rows share no sets

inline std::int64_t padded_heads(std::int64_t group) { return round_up(group, 8); }

// The rows of one head of keys or values.
struct KvRows {
  const unsigned char* data;
  std::int64_t stride;
  std::int64_t count;
  std::int64_t head_dim;
};

// Hardware does not follow rows that take this long each: without this a third of the time goes by
// waiting for the next row (docs/kernels.md). Beyond the end it is harmless.
constexpr std::int64_t kKeysAhead = 64;

template <KvStorage Type>
inline void prefetch_row(const KvRows& rows, std::int64_t index) {
  const unsigned char* row = rows.data + index * rows.stride;
  const std::int64_t bytes = kv_header<Type>() + kv_bytes<Type>(rows.head_dim);
  for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at);
}

// What a part of the keys contributes: the output before its division, the largest score and the
// sum of the weights of each head.
struct Part {
  float* out;      // [heads, depth]
  float* largest;  // [heads rounded up to kLanes]
  float* sums;     // the same
};

inline std::int64_t part_stats(std::int64_t group) { return round_up(padded_heads(group), kLanes); }

inline Part part_at(float* memory, std::int64_t head_dim, std::int64_t group) {
  float* stats = memory + padded_heads(group) * round_up(head_dim, kLanes);
  return {memory, stats, stats + part_stats(group)};
}

inline std::int64_t attention_part_floats(std::int64_t head_dim, std::int64_t group) {
  return padded_heads(group) * round_up(head_dim, kLanes) + 2 * part_stats(group);
}

// Heads of the next tile of at most `most` (a power of two): more than are left when that wastes a
// quarter of the work or less.
inline int tile_heads(std::int64_t left, int most) {
  int heads = most;
  while (heads > 1 && 4 * left < 3 * heads) heads /= 2;
  return heads;
}
