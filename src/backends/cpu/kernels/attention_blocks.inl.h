// What kernels of attention for many queries share, whatever their products are made of: rows are
// (query, head of the group) pairs, some at a time; keys are packed in blocks of kKeys; between the
// scores and the outputs stands a running softmax. Included inside an anonymous namespace of an ISA
// unit.

constexpr int kKeys = 128;
constexpr int kMostRows = 192;  // of one call, at the most

// Hands out parts of a block of memory; of no memory, only its size.
class ScratchPlan {
 public:
  explicit ScratchPlan(float* memory) : memory_(memory) {}
  float* floats(std::int64_t count) {
    float* part = memory_ == nullptr ? nullptr : memory_ + size_;
    size_ += round_up(count, 16);  // a line
    return part;
  }
  std::uint16_t* halves(std::int64_t count) {
    return reinterpret_cast<std::uint16_t*>(floats((count + 1) / 2));
  }
  std::uint32_t* pairs(std::int64_t count) {
    return reinterpret_cast<std::uint32_t*>(floats(count));
  }
  std::int64_t size() const { return size_; }  // in floats

 private:
  float* memory_;
  std::int64_t size_ = 0;
};

inline const float* query_row(const AttentionTask& t, std::int64_t row) {
  return t.q + (t.t_begin + row / t.group) * t.q_row_stride + row % t.group * t.q_head_stride;
}

inline float* output_row(const AttentionTask& t, std::int64_t row) {
  return t.out + (t.t_begin + row / t.group) * t.out_row_stride + row % t.group * t.head_dim;
}

// The running softmax of all rows of a call, and the outputs that it scales.
struct RunningRows {
  float* outputs;  // [rows, columns]
  float* largest;  // [rows]
  float* sums;     // [rows]
  std::int64_t columns;

  RunningRows() = default;
  RunningRows(ScratchPlan& plan, std::int64_t rows, std::int64_t column_count)
      : outputs(plan.floats(rows * column_count)),
        largest(plan.floats(rows)),
        sums(plan.floats(rows)),
        columns(column_count) {}

  void start(std::int64_t rows) const {
    for (std::int64_t i = 0; i < rows * columns; ++i) outputs[i] = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      largest[i] = -__builtin_inff();
      sums[i] = 0;
    }
  }

  // Scores of one row against keys [begin, begin + n) become weights; zeros of what it does not
  // see.
  void weigh(const AttentionTask& t, std::int64_t row, std::int64_t begin, std::int64_t n,
             float* scores) const {
    const KeyRange range = visible_keys(t, t.t_begin + row / t.group);
    const std::int64_t from = range.begin <= begin ? 0 : range.begin - begin;
    const std::int64_t to = range.end >= begin + n ? n : range.end - begin;
    if (from >= to) {
      for (std::int64_t j = 0; j < n; ++j) scores[j] = 0;
      return;
    }
    adjust(t, row % t.group, begin, n, scores);
    soften(scores, from, to, n, largest + row, sums + row, outputs + row * columns, columns);
  }
};

// How many of the keys [begin, begin + n) one of the rows [first_row, first_row + rows) can see.
inline std::int64_t seen_keys(const AttentionTask& t, std::int64_t first_row, std::int64_t rows,
                              std::int64_t begin, std::int64_t n) {
  const KeyRange low = visible_keys(t, t.t_begin + first_row / t.group);
  const KeyRange high = visible_keys(t, t.t_begin + (first_row + rows - 1) / t.group);
  if (low.begin >= begin + n || high.end <= begin) return 0;
  return high.end < begin + n ? high.end - begin : n;
}

// pack(begin, n) for every block of keys, and then attend(first_row, rows, begin, n) for every
// kTileRows rows that see some of them; writes the outputs of all rows.
template <std::int64_t kTileRows, class Pack, class Attend>
inline void attend_blocks(const AttentionTask& t, const RunningRows& running, const Pack& pack,
                          const Attend& attend) {
  const std::int64_t rows = t.t_count * t.group;
  running.start(rows);
  const std::int64_t begin = visible_keys(t, t.t_begin).begin;
  const std::int64_t end = visible_keys(t, t.t_begin + t.t_count - 1).end;
  for (std::int64_t key = begin; key < end; key += kKeys) {
    const std::int64_t n = end - key < kKeys ? end - key : kKeys;
    pack(key, n);
    for (std::int64_t row = 0; row < rows; row += kTileRows) {
      const std::int64_t count = rows - row < kTileRows ? rows - row : kTileRows;
      if (const std::int64_t seen = seen_keys(t, row, count, key, n); seen > 0) {
        attend(row, count, key, seen);
      }
    }
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    write_output(running.outputs + row * running.columns, running.sums[row], t.head_dim,
                 output_row(t, row));
  }
}
