// Linear for few activation rows: dot products straight from the stored weights.
//
//   for each group: scale and zero of R rows
//     for k in group, a vector at a time: w[r] = decode(k); acc[r][i] += w[r] * x[i][k]
//
// R rows at once share the loads of x, give several chains of additions and several streams of
// memory. Bound: memory bandwidth for 16-bit weights; decoding for 4 bits. Rows of x beyond four
// decode again from the first-level cache.
// Included inside an anonymous namespace of an ISA unit.

template <class Source, int M, int R>
void gemv_rows(const GemvTask& t, std::int64_t row, std::int64_t i0) {
  Vec acc[R][M];
  const unsigned char* data[R];
  const float* x[M];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    data[r] = t.w.data + (row + r) * t.w.row_bytes;
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) acc[r][i] = vzero();
  }
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) x[i] = t.x + (i0 + i) * t.x_stride;

  for (std::int64_t g = 0; g < t.w.groups; ++g) {
    Source source[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) source[r] = Source(t.w, row + r, g);
    std::int64_t k = g * t.w.group;
    const std::int64_t end = k + t.w.group;
    for (; k + kLanes <= end; k += kLanes) {
      Vec w[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) w[r] = source[r].load(data[r], k);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        const Vec xi = vload(x[i] + k);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[r][i] = vfma(w[r], xi, acc[r][i]);
      }
    }
    if (k < end) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        // Lanes behind the group meet zeros of x, and selected zeros of w: an infinite scale must
        // not make NaN there.
        float rest[kLanes] = {};
        vstore_n(rest, source[r].load_n(data[r], k, end - k), end - k);
        const Vec w = vload(rest);
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) acc[r][i] = vfma(w, vload_n(x[i] + k, end - k), acc[r][i]);
      }
    }
  }

  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < M; ++i) {
      float& y = t.y[(i0 + i) * t.y_stride + row + r];
      float sum = vsum(acc[r][i]);
      if (t.add) sum += y;
      if (t.bias != nullptr) sum += t.bias[row + r];
      y = sum;
    }
  }
}

template <class Source, int M, int R>
void gemv_range(const GemvTask& t, std::int64_t i0) {
  std::int64_t row = t.row_begin;
  for (; row + R <= t.row_end; row += R) gemv_rows<Source, M, R>(t, row, i0);
  for (; row < t.row_end; ++row) gemv_rows<Source, M, 1>(t, row, i0);
}

template <class Source>
void gemv_from(const GemvTask& t) {
  std::int64_t i0 = 0;
  for (; i0 + 4 <= t.m; i0 += 4) gemv_range<Source, 4, 2>(t, i0);
  switch (t.m - i0) {
    case 3:
      return gemv_range<Source, 3, 2>(t, i0);
    case 2:
      return gemv_range<Source, 2, 4>(t, i0);
    case 1:
      return gemv_range<Source, 1, 4>(t, i0);
    default:
      return;
  }
}

// Weights must be floats, or codes of 4 or 8 bits: other widths are decoded by the caller.
void gemv(const GemvTask& t) {
  switch (t.w.storage) {
    case Storage::kF32:
      return gemv_from<FloatSource<Storage::kF32>>(t);
    case Storage::kF16:
      return gemv_from<FloatSource<Storage::kF16>>(t);
    case Storage::kBF16:
      return gemv_from<FloatSource<Storage::kBF16>>(t);
    case Storage::kInt:
      return t.w.bits == 4 ? gemv_from<CodeSource<4>>(t) : gemv_from<CodeSource<8>>(t);
  }
}
