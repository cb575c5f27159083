// Matrix product on packed float32 operands: a tile of kMr activation rows times a panel of kNr
// weight columns, all sums in registers.
//
//   for k: load kNv vectors of the panel; for each of M rows: broadcast a, M x kNv multiply-adds
//
// Bound: multiply-add units. The panel block stays in the second-level cache, the tile in the
// first. Included inside an anonymous namespace of an ISA unit.

// acc = sum over k of a[i * kRowStride + k * kStepStride] * b[k * kNr ...]
template <int M, int kRowStride, int kStepStride>
inline void multiply(const float* a, const float* b, std::int64_t k, Vec (&acc)[M][kNv]) {
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) acc[i][v] = vzero();
  }
  for (; k > 0; --k, a += kStepStride, b += kNr) {
    Vec w[kNv];
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) w[v] = vload(b + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Vec x = vset(a[i * kRowStride]);
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) acc[i][v] = vfma(x, w[v], acc[i][v]);
    }
  }
}

template <int M, int kRowStride, int kStepStride>
void tile_of(const float* a, const float* b, std::int64_t k, const TileOutput& out) {
  Vec acc[M][kNv];
  multiply<M, kRowStride, kStepStride>(a, b, k, acc);
  store_tile<M>(acc, out);
}

// tile_of for a number of rows known at run time.
template <int kRowStride, int kStepStride, int M = kMr>
inline void tile(std::int64_t rows, const float* a, const float* b, std::int64_t k,
                 const TileOutput& out) {
  if (rows == M) return tile_of<M, kRowStride, kStepStride>(a, b, k, out);
  if constexpr (M > 1) tile<kRowStride, kStepStride, M - 1>(rows, a, b, k, out);
}

void gemm(const GemmTask& t) {
  const float* a = t.a;
  for (std::int64_t i = 0; i < t.m; i += kMr, a += t.a_tile_stride) {
    const std::int64_t rows = t.m - i < kMr ? t.m - i : kMr;
    const float* b = t.b;
    for (std::int64_t n = 0; n < t.n; n += kNr, b += t.b_panel_stride) {
      const TileOutput out = {.c = t.c + i * t.c_stride + n,
                              .stride = t.c_stride,
                              .n = t.n - n < kNr ? t.n - n : kNr,
                              .bias = t.bias == nullptr ? nullptr : t.bias + n,
                              .add = t.add};
      tile<1, kMr>(rows, a, b, t.k, out);
    }
  }
}

void pack_panel(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t k,
                float* panel) {
  for (std::int64_t r = 0; r < kNr; r += kLanes) {
    float padded[kLanes * kLanes];
    for (std::int64_t j = 0; j < k; j += kLanes) {
      float* out = panel + j * kNr + r;
      if (r + kLanes <= rows) {
        transpose(source + r * stride + j, stride, out, kNr);
        continue;
      }
      for (int i = 0; i < kLanes; ++i) {
        vstore(padded + i * kLanes, r + i < rows ? vload(source + (r + i) * stride + j) : vzero());
      }
      transpose(padded, kLanes, out, kNr);
    }
  }
}

void pack_tile(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t k,
               float* tile_out) {
  // Whole vectors are stored: each overlaps the next row of the tile, which is stored after it.
  static_assert(kMr <= kLanes, "one vector holds a row of the tile");
  float padded[kLanes * kLanes];
  for (std::int64_t j = 0; j < k; j += kLanes) {
    const std::int64_t n = k - j < kLanes ? k - j : kLanes;
    for (int i = 0; i < kLanes; ++i) {
      Vec v = vzero();
      if (i < rows)
        v = n == kLanes ? vload(source + i * stride + j) : vload_n(source + i * stride + j, n);
      vstore(padded + i * kLanes, v);
    }
    float columns[kLanes * kLanes];
    transpose(padded, kLanes, columns, kLanes);
    for (std::int64_t c = 0; c < n; ++c)
      vstore(tile_out + (j + c) * kMr, vload(columns + c * kLanes));
  }
}
