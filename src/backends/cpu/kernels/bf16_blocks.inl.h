// The walk of a product of bf16 over blocks of kRows activation rows times a panel. Included inside
// an anonymous namespace of an ISA unit.

// Brings some lines of what is read next into the second-level cache at every step of `steps`: the
// products leave the memory idle, and the rows of a block are too many streams for the processor to
// follow by itself.
class AheadReader {
 public:
  AheadReader(const ReadAhead& ahead, std::int64_t steps)
      : ahead_(ahead),
        row_lines_((ahead.bytes + kLine - 1) / kLine),
        lines_((ahead.rows * row_lines_ + steps - 1) / steps) {}

  void step() {
    for (std::int64_t i = 0; i < lines_ && row_ < ahead_.rows; ++i) {
      __builtin_prefetch(ahead_.data + row_ * ahead_.stride + line_ * kLine, 0, 2);
      if (++line_ == row_lines_) {
        line_ = 0;
        ++row_;
      }
    }
  }

 private:
  static constexpr std::int64_t kLine = 64;
  ReadAhead ahead_;
  std::int64_t row_lines_;
  std::int64_t lines_;  // a step
  std::int64_t row_ = 0;
  std::int64_t line_ = 0;
};

// block(rows, a, b, out) for every block; the rows of a block stay in the first-level cache while
// the panels pass.
template <std::int64_t kRows, class Block>
inline void for_each_block(const Bf16GemmTask& t, const Block& block) {
  const std::int64_t panels = (t.n + kBf16PanelRows - 1) / kBf16PanelRows;
  AheadReader ahead(t.ahead, (t.m + kRows - 1) / kRows * panels);
  for (std::int64_t i = 0; i < t.m; i += kRows) {
    const std::int64_t rows = t.m - i < kRows ? t.m - i : kRows;
    const std::uint32_t* b = t.b;
    for (std::int64_t n = 0; n < t.n; n += kBf16PanelRows, b += t.b_panel_stride) {
      ahead.step();
      block(rows, t.a + i * t.a_stride, b,
            TileOutput{.c = t.c + i * t.c_stride + n,
                       .stride = t.c_stride,
                       .n = t.n - n < kBf16PanelRows ? t.n - n : kBf16PanelRows,
                       .bias = t.bias == nullptr ? nullptr : t.bias + n,
                       .add = t.add});
    }
  }
}
