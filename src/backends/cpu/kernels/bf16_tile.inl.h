// kBf16Rows rows of bf16 times a panel of pairs, all sums in registers.
//
//   for each pair of columns: load 2 vectors of the panel; for each row: broadcast the row's pair,
//     2 products of pairs
//
// Bound: the products. Included inside an anonymous namespace of an ISA unit.

constexpr int kBf16Rows = 12;
constexpr int kPanelVectors = static_cast<int>(kBf16PanelRows / kPairLanes);

template <int M>
void bf16_tile(const std::uint16_t* a, std::int64_t a_stride, const std::uint32_t* b,
               std::int64_t k, const TileOutput& out) {
  Vec acc[M][kPanelVectors];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) acc[i][v] = vzero();
  }
  for (; k > 0; k -= 2, a += 2, b += kBf16PanelRows) {
    Pairs w[kPanelVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors; ++v) w[v] = pload(b + v * kPairLanes);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Pairs x = pbroadcast(a + i * a_stride);
#pragma GCC unroll 2
      for (int v = 0; v < kPanelVectors; ++v) acc[i][v] = pdot(acc[i][v], x, w[v]);
    }
  }
  store_tile<M>(acc, out);
}

// bf16_tile for a number of rows known at run time.
template <int M = kBf16Rows>
inline void bf16_tile_rows(std::int64_t rows, const std::uint16_t* a, std::int64_t a_stride,
                           const std::uint32_t* b, std::int64_t k, const TileOutput& out) {
  if (rows == M) return bf16_tile<M>(a, a_stride, b, k, out);
  if constexpr (M > 1) bf16_tile_rows<M - 1>(rows, a, a_stride, b, k, out);
}
