// Super-blocks of ggml in panels (block_panel_kernels.h) times activations, four rows at a time.
//
//   for each 32 columns:
//     for each run: sum[i] = -offset * (sum of q[i]);  for each unit of 8 columns:
//         codes = nibbles | high bits << 4;  sum[i] += codes . q[i]    (32-bit integers)
//       y[i] += (scale_x * sum[i]) * (d * scale);  y[i] -= (dmin * minimum) * (sum of x[i])
//
// Bound: memory bandwidth; from four rows on instructions.
// Included inside an anonymous namespace of an ISA unit.

// The levels of IQ4 above -128, four times.
alignas(64) constexpr unsigned char kRaisedIq4[64] = {
    1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241,
    1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241,
    1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241,
    1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

// 32 columns of one vector of rows of a panel.
template <const BlockPanelType& kType>
class PanelColumns {
 public:
  static constexpr BlockPanelLayout kLayout{kType};

  // columns: where the 32 columns begin in the panel.
  PanelColumns() = default;
  PanelColumns(const unsigned char* columns, int part)
      : numbers_(reinterpret_cast<const signed char*>(columns) + part * kLanes),
        codes_(columns + part * kVecBytes) {}

  Halves codes(int unit) const {
    Halves halves = low_bits(unit);
    if constexpr (kType.high > 0) {
      constexpr int kFrom = kType.low;
      halves.low = ior(halves.low, bits<kType.high, kFrom>(kLayout.high, 2 * unit));
      halves.high = ior(halves.high, bits<kType.high, kFrom>(kLayout.high, 2 * unit + 1));
    }
    if constexpr (kType.type == BlockStorage::kIq4Xs) {
      const Ints levels = iload(kRaisedIq4);
      halves = {ilookup(levels, halves.low), ilookup(levels, halves.high)};
    }
    return halves;
  }
  Vec scale(int run) const { return ifloat8(numbers_ + run * kPanelRows); }
  Vec minimum(int run) const { return ifloat8(numbers_ + kLayout.minimums + run * kPanelRows); }
  void fetch_ahead() const {
#pragma GCC unroll 8
    for (int i = 0; i < kType.low + kType.high; ++i) {
      __builtin_prefetch(codes_ + kLayout.high + i * kUnitBytes + kPrefetch);
    }
  }

 private:
  Halves low_bits(int unit) const {
    if constexpr (kType.low == 2) {
      return {bits<2, 0>(kLayout.low, 2 * unit), bits<2, 0>(kLayout.low, 2 * unit + 1)};
    }
    const Ints packed = iload(codes_ + kLayout.low + unit * kUnitBytes);
    const Ints mask = iset8(15);
    return {iand(packed, mask), iand(ishift4(packed), mask)};
  }
  // Bits of the codes of a half that have bytes of their own at `at`, from bit kTo on.
  template <int kBits, int kTo>
  Ints bits(std::int64_t at, int half) const {
    constexpr int kHalves = 8 / kBits;  // in a vector
    const Ints packed = iload(codes_ + at + half / kHalves * kUnitBytes);
    const int from = kBits * (half % kHalves);
    return iand(imoved(packed, kTo - from), iset8(((1 << kBits) - 1) << kTo));
  }

  const signed char* numbers_ = nullptr;
  const unsigned char* codes_ = nullptr;
};

// What is known of 32 columns of M rows of x.
template <int M>
struct SignedColumns {
  SignedColumns(const SignedRows& x, std::int64_t row, std::int64_t block)
      : q(x.q + row * x.stride + block * kInt8Block), stride(x.stride) {
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      const std::int64_t at = (row + i) * x.blocks + block;
      scale[i] = x.scale[at];
      sum[i] = x.sum[at];
      sums[i] = x.sums + 2 * at;
    }
  }
  int sum_of(int i, int run, int columns) const {
    return columns == 16 ? sums[i][run] : sums[i][0] + sums[i][1];
  }
  // The same of the rounded values.
  float value_of(int i, int run, int columns) const {
    return columns == 16 ? scale[i] * static_cast<float>(sums[i][run]) : sum[i];
  }

  const signed char* q;  // of the first row
  std::int64_t stride;
  float scale[M], sum[M];
  const std::int32_t* sums[M];
};

// The products of one run, 16 or 32 columns, are added to y. d: of the super-block.
template <const BlockPanelType& kType, int M>
inline void add_run(const PanelColumns<kType> (&w)[kNv], const SignedColumns<M>& x, int run,
                    const Vec (&d)[kNv], Vec (&y)[M][kNv]) {
  constexpr int kUnits = kType.run / 8;
  Ints sum[M][kNv];
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) {
    const int taken = kType.offset > 0 ? kType.offset * x.sum_of(i, run, kType.run) : 0;
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) sum[i][v] = iset32(-taken);
  }
#pragma GCC unroll 4
  for (int unit = run * kUnits; unit < (run + 1) * kUnits; ++unit) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) {
      const Halves codes = w[v].codes(unit);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        const signed char* const q = x.q + i * x.stride + 8 * unit;
        sum[i][v] = idot(sum[i][v], codes.low, ibroadcast4(q));
        sum[i][v] = idot(sum[i][v], codes.high, ibroadcast4(q + 4));
      }
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < kNv; ++v) {
    const Vec scale = vmul(d[v], w[v].scale(run));
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      y[i][v] = vfma(vmul(ifloat(sum[i][v]), vset(x.scale[i])), scale, y[i][v]);
    }
  }
}

template <const BlockPanelType& kType, int M>
inline void add_columns(const PanelColumns<kType> (&w)[kNv], const SignedColumns<M>& x,
                        const Vec (&d)[kNv], const Vec (&dmin)[kNv], Vec (&y)[M][kNv]) {
  constexpr int kRuns = 32 / kType.run;
#pragma GCC unroll 2
  for (int run = 0; run < kRuns; ++run) add_run<kType, M>(w, x, run, d, y);
  if constexpr (kType.minimums) {
#pragma GCC unroll 4
    for (int j = 0; j < kRuns * kNv; ++j) {
      const int run = j / kNv, v = j % kNv;
      const Vec minimum = vmul(dmin[v], w[v].minimum(run));
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        y[i][v] = vfma(minimum, vset(-x.value_of(i, run, kType.run)), y[i][v]);
      }
    }
  }
}

// Rows [row, row + M) of x times vectors [part, part + kNv) of the panel.
template <const BlockPanelType& kType, int M>
void block_panel_vectors(const BlockPanelTask& t, std::int64_t row, int part) {
  constexpr BlockPanelLayout kLayout = PanelColumns<kType>::kLayout;
  Vec y[M][kNv];
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) y[i][v] = vzero();
  }
  const unsigned char* at = t.w.data + t.panel * t.w.panel_bytes;
  for (std::int64_t block = 0; block < t.x.blocks;) {
    Vec d[kNv], dmin[kNv];
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) {
      const unsigned char* const halves = at + 2 * (part + v) * kLanes;
      d[v] = load_floats<Storage::kF16>(halves);
      dmin[v] = kType.minimums ? load_floats<Storage::kF16>(halves + 2 * kPanelRows) : vzero();
    }
    at += kLayout.header;
    for (const std::int64_t end = block + kSuperBlock / 32; block < end; ++block) {
      PanelColumns<kType> w[kNv];
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) {
        w[v] = PanelColumns<kType>(at, part + v);
        w[v].fetch_ahead();
      }
      add_columns<kType, M>(w, SignedColumns<M>(t.x, row, block), d, dmin, y);
      at += kLayout.columns32;
    }
  }
  store_tile<M>(y, output_of(t, row, part, true));
}

template <const BlockPanelType& kType>
void block_panel_of(const BlockPanelTask& t) {
  over_panel(
      t, [&]<int M>(std::int64_t row, int part) { block_panel_vectors<kType, M>(t, row, part); });
}

void block_panel_run(const BlockPanelTask& t) {
  switch (t.w.type) {
    case BlockStorage::kQ2_K:
      return block_panel_of<kPanelQ2K>(t);
    case BlockStorage::kQ3_K:
      return block_panel_of<kPanelQ3K>(t);
    case BlockStorage::kQ4_K:
      return block_panel_of<kPanelQ4K>(t);
    case BlockStorage::kQ5_K:
      return block_panel_of<kPanelQ5K>(t);
    case BlockStorage::kQ6_K:
      return block_panel_of<kPanelQ6K>(t);
    default:
      if constexpr (kUnsignedBytes) block_panel_of<kPanelIq4Xs>(t);
      return;
  }
}

void block_panel_quantize(const float* x, std::int64_t i, const SignedRows& rows) {
  signed char* q = rows.q + i * rows.stride;
  std::int64_t at = i * rows.blocks;
  for (std::int64_t b = 0; b < rows.blocks; ++b, ++at, x += kInt8Block, q += kInt8Block) {
    Vec high = vzero();
    Vec poison = vzero();  // NaN as soon as a value is no number
    for (int k = 0; k < kInt8Block; k += kLanes) {
      high = vmax(vabs(vload(x + k)), high);
      poison = vfma(vload(x + k), vzero(), poison);
    }
    const float most = vhmax(high);
    // A range without a reciprocal in float32 rounds to zero.
    const float inverse = most > 1e-30f ? 127.0f / most : 0.0f;
    auto* const bytes = reinterpret_cast<unsigned char*>(q);
    for (int half = 0; half < 2; ++half) {
      Vec total = vzero();
      for (int k = 16 * half; k < 16 * half + 16; k += kLanes) {
        const Vec v = vround(vmul(vload(x + k), vset(inverse)));
        const Vec whole = vmin(vset(127.0f), vmax(vset(-127.0f), v));
        total = vadd(total, whole);
        store_bytes(bytes + k, vadd(whole, vset(128.0f)));
      }
      rows.sums[2 * at + half] = static_cast<std::int32_t>(vsum(total));
    }
    for (int k = 0; k < kInt8Block; ++k) bytes[k] = static_cast<unsigned char>(bytes[k] ^ kRaised);
    const float scale = (inverse > 0 ? most / 127.0f : 0.0f) + vsum(poison);
    rows.scale[at] = scale;
    rows.sum[at] = scale * static_cast<float>(rows.sums[2 * at] + rows.sums[2 * at + 1]);
  }
}
