// The walk of a product of bf16 over blocks of kRows activation rows times a panel. Included inside
// an anonymous namespace of an ISA unit.

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
