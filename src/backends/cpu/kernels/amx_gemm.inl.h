// The product of bf16_gemm.inl.h on tiles: 32 activation rows times a panel, all sums in tiles.
//
//   for each 32 columns: load 2 tiles of rows (as they are) and 2 of the panel; 4 tile products
//
// Bound: reading and writing the sums, whose rows lie in as many pages, hence blocks of many
// columns; then the second-level cache, from which rows and panels come, and tile products (16
// cycles each). Included inside an anonymous namespace of an ISA unit.

static_assert(kBf16TileRows == 2 * kAmxRows && kBf16PanelRows == 2 * kPairLanes);
static_assert(2 * kBf16Step == kAmxRowBytes);

// c[32, 32] (+)= a * b; kLow: only the first 16 rows are wanted.
template <bool kLow>
inline void amx_block(const std::uint16_t* a, std::int64_t a_stride, const std::uint32_t* b,
                      std::int64_t k, float* c, std::int64_t c_stride, bool add) {
  const auto stride = static_cast<std::size_t>(4 * c_stride);
  float* low = c + kAmxRows * c_stride;
  if (add) {
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + kPairLanes, stride);
    if constexpr (!kLow) {
      _tile_loadd(2, low, stride);
      _tile_loadd(3, low + kPairLanes, stride);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const auto rows = static_cast<std::size_t>(2 * a_stride);
  constexpr std::size_t kPanel = 4 * kBf16PanelRows;
  for (; k > 0; k -= kBf16Step, a += kBf16Step, b += kBf16Step / 2 * kBf16PanelRows) {
    _tile_loadd(4, a, rows);
    _tile_loadd(6, b, kPanel);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + kPairLanes, kPanel);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (!kLow) {
      _tile_loadd(5, a + kAmxRows * a_stride, rows);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, stride);
  _tile_stored(1, c + kPairLanes, stride);
  if constexpr (!kLow) {
    _tile_stored(2, low, stride);
    _tile_stored(3, low + kPairLanes, stride);
  }
}

inline void amx_block_rows(std::int64_t rows, const std::uint16_t* a, std::int64_t a_stride,
                           const std::uint32_t* b, std::int64_t k, float* c, std::int64_t c_stride,
                           bool add) {
  if (rows <= kAmxRows) return amx_block<true>(a, a_stride, b, k, c, c_stride, add);
  amx_block<false>(a, a_stride, b, k, c, c_stride, add);
}

// A block that is not whole, or has a bias: its sums take a way through memory.
inline void amx_block_part(std::int64_t rows, const std::uint16_t* a, std::int64_t a_stride,
                           const std::uint32_t* b, std::int64_t k, const TileOutput& out) {
  alignas(64) float sums[kBf16TileRows * kBf16PanelRows];
  amx_block_rows(rows, a, a_stride, b, k, sums, kBf16PanelRows, false);
  for (std::int64_t i = 0; i < rows; ++i) {
    Vec row[1][kNv];
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) row[0][v] = vload(sums + i * kBf16PanelRows + v * kLanes);
    TileOutput place = out;
    place.c += i * out.stride;
    store_tile<1>(row, place);
  }
}

void amx_gemm(const Bf16GemmTask& t) {
  const WholeTiles tiles;
  for_each_block<kBf16TileRows>(t, [&](std::int64_t rows, const std::uint16_t* a,
                                       const std::uint32_t* b, const TileOutput& out) {
    const bool whole = rows % kAmxRows == 0 && out.n == kBf16PanelRows && out.bias == nullptr;
    if (whole) {
      amx_block_rows(rows, a, t.a_stride, b, t.k, out.c, out.stride, out.add);
    } else {
      amx_block_part(rows, a, t.a_stride, b, t.k, out);
    }
  });
}
