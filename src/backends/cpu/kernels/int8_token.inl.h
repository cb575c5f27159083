// Activations of a format of integers by token against the panels: sums of whole groups in 32-bit
// integers, so that a row's result has the same bits whatever number of rows a call has.
//
//   once a panel: unpack nibbles - zero to bytes; less_w = -128 * sum of w, by group
//   for each group: sum[i] = (q[i] + 128) . w                      (32-bit integers)
//     y[i] += scale_w * (sum[i] + less_w - zero * sum of q[i])
//   y[i] *= scale_x[i]
//
// Bound: memory bandwidth for few rows, byte products for many.
// Included inside an anonymous namespace of an ISA unit.

constexpr int kRaised = 128 - kByteShift;  // what bytes of activations stand above their values

// One row of floats to bytes; the scale is returned. `most`: the largest magnitude of q.
float token_quantize(const float* x, std::int64_t cols, float most, unsigned char* q) {
  Vec high = vzero();
  Vec poison = vzero();  // NaN as soon as a value is no number
  for (std::int64_t k = 0; k < cols; k += kLanes) {
    const Vec v = vload(x + k);
    high = vmax(vmax(v, vsub(vzero(), v)), high);
    poison = vfma(v, vzero(), poison);
  }
  const float absmax = vhmax(high);
  const float scale = absmax / most;
  const float inverse = most / absmax;
  const bool zero = !(inverse <= 3.4028234e38f);  // no float32
  const Vec factor = vset(zero ? 0.0f : inverse);
  for (std::int64_t k = 0; k < cols; k += kLanes) {
    const Vec v = vround(vmul(vload(x + k), factor));
    const Vec byte = vadd(vmin(vset(most), vmax(vset(-most), v)), vset(128.0f));
    store_bytes(q + k, byte);
  }
  return (zero ? 0.0f : scale) + vsum(poison);
}

// Vector v of the panel: bytes [columns / 4][kParts][kVecBytes] of nibbles, and the sums by group.
template <bool kNibbles>
void token_unpack(const TokenTask& t, int v, unsigned char* bytes, int* less_w) {
  constexpr std::int64_t kUnit = unit_columns<kNibbles>();
  const unsigned char* codes = t.w.codes + t.panel * t.w.panel_bytes + v * kVecBytes;
  const Ints raised = iset8(kRaised);
  for (std::int64_t g = 0; g < t.w.groups; ++g) {
    const GroupNumbers numbers(t.w, t.panel, v, g);
    const Ints zero = kNibbles ? ispread(numbers.zeros) : izero();
    Ints sum = izero();
    for (std::int64_t k = 0; k < t.w.group; k += kUnit, codes += kUnitBytes) {
      const Ints packed = iload(codes);
      if constexpr (kNibbles) {
        const Halves w = nibbles(packed, zero);
        istore(bytes, w.low);
        istore(bytes + kParts * kVecBytes, w.high);
        bytes += 2 * kParts * kVecBytes;
        sum = idot(idot(sum, raised, w.low), raised, w.high);
      } else {
        sum = idot(sum, raised, packed);
      }
    }
    int* const out = less_w + g * kPanelRows + v * kLanes;
    istore(out, sum);
    for (int i = 0; i < kLanes; ++i) out[i] = -out[i];
  }
}

// Rows [row, row + M) times vectors [v0, v0 + kNv) of the panel.
template <int M>
void token_tile(const TokenTask& t, std::int64_t row, int v0, const unsigned char* bytes,
                const int* less_w) {
  Vec y[M][kNv];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) y[i][v] = vzero();
  }
  const unsigned char* q = t.q + row * t.q_stride;
  bytes += v0 * kVecBytes;
  for (std::int64_t g = 0; g < t.w.groups; ++g) {
    Ints sum[M][kNv];
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) {
      const Ints start = iload(less_w + g * kPanelRows + (v0 + v) * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) sum[i][v] = start;
    }
    for (std::int64_t k = 0; k < t.w.group; k += 4, q += 4, bytes += kParts * kVecBytes) {
      Ints w[kNv];
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) w[v] = iload(bytes + v * kVecBytes);
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
        const Ints x = ibroadcast4(q + i * t.q_stride);
#pragma GCC unroll 2
        for (int v = 0; v < kNv; ++v) sum[i][v] = idot(sum[i][v], x, w[v]);
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) {
      const GroupNumbers numbers(t.w, t.panel, v0 + v, g);
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
        Vec total = ifloat(sum[i][v]);
        if (t.q_sums != nullptr) {
          const Vec q_sum = vset(-t.q_sums[(row + i) * t.w.groups + g]);
          total = vfma(ifloat8(numbers.zeros), q_sum, total);
        }
        y[i][v] = vfma(total, numbers.scale, y[i][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) y[i][v] = vmul(y[i][v], vset(t.scale[row + i]));
  }
  store_tile<M>(y, output_of(t, row, v0, true));
}

template <int M = kTileRows>
inline void token_tile_rows(std::int64_t rows, const TokenTask& t, std::int64_t row, int v0,
                            const unsigned char* bytes, const int* less_w) {
  if (rows == M) return token_tile<M>(t, row, v0, bytes, less_w);
  if constexpr (M > 1) token_tile_rows<M - 1>(rows, t, row, v0, bytes, less_w);
}

// A panel as token_unpack() leaves it.
struct TokenPanel {
  const unsigned char* bytes;
  const int* less_w;  // [groups][kPanelRows]
};

TokenPanel token_panel(const TokenTask& t) {
  int* const less_w = reinterpret_cast<int*>(t.scratch);
  unsigned char* const unpacked = t.scratch + 4 * kPanelRows * t.w.groups;
  for (int v = 0; v < kParts; ++v) {
    if (t.w.nibbles) {
      token_unpack<true>(t, v, unpacked + v * kVecBytes, less_w);
    } else {
      token_unpack<false>(t, v, nullptr, less_w);
    }
  }
  return {t.w.nibbles ? unpacked : t.w.codes + t.panel * t.w.panel_bytes, less_w};
}

void int8_token(const TokenTask& t) {
  const TokenPanel panel = token_panel(t);
  for (std::int64_t row = 0; row < t.m; row += kTileRows) {
    const std::int64_t rows = t.m - row < kTileRows ? t.m - row : kTileRows;
    for (int v = 0; v < kParts; v += kNv) {
      if (t.panel * kPanelRows + v * kLanes >= t.w.rows) break;
      token_tile_rows(rows, t, row, v, panel.bytes, panel.less_w);
    }
  }
}
