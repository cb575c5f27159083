// Where the results of a panel go. Included inside an anonymous namespace of an ISA unit, after
// tile_output.inl.h.

constexpr int kParts = static_cast<int>(kPanelRows) / kLanes;
static_assert(kParts % kNv == 0, "tiles cover the panel");

// The place of sums of rows [row, ...) and vectors [v, v + kNv). Biases and the old values of y are
// added by the first of several calls.
template <class Task>
inline TileOutput output_of(const Task& t, std::int64_t row, int v, bool first_call) {
  const std::int64_t n = t.panel * kPanelRows + v * kLanes;
  const PanelOutput& out = t.out;
  return {.c = out.y + row * out.y_stride + n,
          .stride = out.y_stride,
          .n = t.w.rows - n < kNr ? t.w.rows - n : kNr,
          .bias = first_call && out.bias != nullptr ? out.bias + n : nullptr,
          .add = out.add || !first_call};
}

// vectors.operator()<M>(row, part) for all rows of x and every kNv vectors of the panel that hold a
// row of the weight. The panel comes from memory once and then from the caches.
template <class Task, class Vectors>
inline void over_panel(const Task& t, const Vectors& vectors) {
  rows_in_fours(t.m, [&]<int M>(std::int64_t row) {
    for (int part = 0; part < kParts; part += kNv) {
      if (t.panel * kPanelRows + part * kLanes >= t.w.rows) return;
      vectors.template operator()<M>(row, part);
    }
  });
}
