// Matrix product of bf16 rows and panels of bf16 pairs. The panels stay in the second-level cache,
// the rows of a tile in the first. Included inside an anonymous namespace of an ISA unit.

void bf16_gemm(const Bf16GemmTask& t) {
  for_each_block<kBf16Rows>(
      t, [&](std::int64_t rows, const std::uint16_t* a, const std::uint32_t* b,
             const TileOutput& out) { bf16_tile_rows(rows, a, t.a_stride, b, t.k, out); });
}
