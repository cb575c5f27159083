// Linear for few activation rows: dot products straight from the stored weights.
//
//   for each row of w, for each group: scale and zero
//     for k in group, kSteps vectors at a time: w[s] = decode(k + s); acc[s][i] += w[s] * x[i][k +
//     s]
//
// One weight row after the other, so that memory is one stream, which prefetching a page ahead
// keeps busy (four rows at once read 40 % slower). Bound: memory bandwidth for 16-bit weights;
// decoding for 4 bits. Rows of x beyond four decode again from the first-level cache. Included
// inside an anonymous namespace of an ISA unit.

// The last n weights of a group. Lanes behind them meet zeros of x, and must be zeros too: an
// infinite scale must not make NaN there.
template <class Source>
inline Vec load_end(const Source& source, const unsigned char* data, std::int64_t k,
                    std::int64_t n) {
  float rest[kLanes] = {};
  vstore_n(rest, source.load_n(data, k, n), n);
  return vload(rest);
}

// Row `row` of w times rows [i0, i0 + M) of x, in kSteps chains of additions each.
template <class Source, int M>
void gemv_row(const GemvTask& t, std::int64_t row, std::int64_t i0) {
  constexpr int kSteps = M == 1 ? 4 : 2;
  constexpr std::int64_t kAhead = 4096;
  const unsigned char* data = t.w.data + row * t.w.row_bytes;
  const float* x = t.x + i0 * t.x_stride;
  Vec acc[kSteps][M];
#pragma GCC unroll 4
  for (int s = 0; s < kSteps; ++s) {
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) acc[s][i] = vzero();
  }
  for (std::int64_t g = 0; g < t.w.groups; ++g) {
    const Source source(t.w, row, g);
    std::int64_t k = g * t.w.group;
    const std::int64_t end = k + t.w.group;
    for (; k + kSteps * kLanes <= end; k += kSteps * kLanes) {
#pragma GCC unroll 4
      for (int s = 0; s < kSteps; ++s) {
        const std::int64_t at = k + s * kLanes;
        const Vec w = source.load(data, at);
        __builtin_prefetch(data + Source::byte_of(at) + kAhead);
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) acc[s][i] = vfma(w, vload(x + i * t.x_stride + at), acc[s][i]);
      }
    }
    for (; k + kLanes <= end; k += kLanes) {
      const Vec w = source.load(data, k);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) acc[0][i] = vfma(w, vload(x + i * t.x_stride + k), acc[0][i]);
    }
    if (k < end) {
      const Vec w = load_end(source, data, k, end - k);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        acc[1][i] = vfma(w, vload_n(x + i * t.x_stride + k, end - k), acc[1][i]);
      }
    }
  }
  store_dots(acc, t, row, i0);
}

// The rows of a weight that stands in groups.
template <class Source>
struct InGroups {
  template <int M>
  static void row(const GemvTask& t, std::int64_t row, std::int64_t i0) {
    gemv_row<Source, M>(t, row, i0);
  }
};

// Weights must be floats, codes of 4 or 8 bits, or blocks: other widths are decoded by the caller.
void gemv(const GemvTask& t) {
  switch (t.w.storage) {
    case Storage::kF32:
      return rows_from<InGroups<FloatSource<Storage::kF32>>>(t);
    case Storage::kF16:
      return rows_from<InGroups<FloatSource<Storage::kF16>>>(t);
    case Storage::kBF16:
      return rows_from<InGroups<FloatSource<Storage::kBF16>>>(t);
    case Storage::kInt:
      return t.w.bits == 4 ? rows_from<InGroups<CodeSource<4>>>(t)
                           : rows_from<InGroups<CodeSource<8>>>(t);
    case Storage::kBlock:
      return with_block(t.w.block, [&]<class Block>() { rows_from<InBlocks<Block>>(t); });
  }
}
