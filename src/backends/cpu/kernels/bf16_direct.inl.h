// Few activation rows against bf16 weights as they lie in memory, one row of weights at a time.
//
//   for each row of w: for k, 32 columns at a time: load w, prefetch 4 KiB ahead;
//     for each of M rows of x: acc[i] += pairs of x[i] . pairs of w
//
// Bound: memory bandwidth. Included inside an anonymous namespace of an ISA unit.

// More rows of x go kDirectM at a time over the same row of weights, which is then in the cache.
constexpr int kDirectM = 8;

template <int M>
void bf16_direct_row(const Bf16DirectTask& t, std::int64_t row, std::int64_t i0) {
  // The products wait for each other in a chain: enough of them to hide it.
  constexpr int kChains = M == 1 ? 4 : 2;
  constexpr std::int64_t kAhead = 4096;
  const unsigned char* w = t.w + row * t.row_bytes;
  const std::uint16_t* x = t.x + i0 * t.x_stride;
  Vec acc[kChains][M];
#pragma GCC unroll 4
  for (int s = 0; s < kChains; ++s) {
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) acc[s][i] = vzero();
  }
  std::int64_t k = 0;
  for (; k + kChains * kBf16Step <= t.cols; k += kChains * kBf16Step) {
#pragma GCC unroll 4
    for (int s = 0; s < kChains; ++s) {
      const std::int64_t at = k + s * kBf16Step;
      const Pairs wv = pload(w + 2 * at);
      __builtin_prefetch(w + 2 * at + kAhead);
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) acc[s][i] = pdot(acc[s][i], pload(x + i * t.x_stride + at), wv);
    }
  }
  for (; k < t.cols; k += kBf16Step) {
    const std::int64_t left = t.cols - k;
    const Pairs wv = left < kBf16Step ? pload_n(w + 2 * k, left) : pload(w + 2 * k);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) acc[0][i] = pdot(acc[0][i], pload(x + i * t.x_stride + k), wv);
  }
  store_dots(acc, t, row, i0);
}

// bf16_direct_row for a number of rows known at run time.
template <int M = kDirectM>
inline void bf16_direct_rows(std::int64_t rows, const Bf16DirectTask& t, std::int64_t row,
                             std::int64_t i0) {
  if (rows == M) return bf16_direct_row<M>(t, row, i0);
  if constexpr (M > 1) bf16_direct_rows<M - 1>(rows, t, row, i0);
}

void bf16_direct(const Bf16DirectTask& t) {
  for (std::int64_t row = t.row_begin; row < t.row_end; ++row) {
    for (std::int64_t i = 0; i < t.m; i += kDirectM) {
      bf16_direct_rows(t.m - i < kDirectM ? t.m - i : kDirectM, t, row, i);
    }
  }
}
