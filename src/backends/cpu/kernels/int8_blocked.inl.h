// Many activation rows: the weights of a panel are unpacked to signed bytes once for some
// columns, then tiles of kTileRows activation rows run over them.
//
//   for each block: for each 4 columns: load kNv vectors of w; for each row: broadcast q,
//     kNv byte products
//     part[i] += scale_x[i] * sum[i] + offset_x[i] * sum_w
//   for each group: y[i] += scale_w * part[i]
//
// Bound: byte products; the unpacked weights stay in the first-level cache.
// Included inside an anonymous namespace of an ISA unit.

// What unpacking leaves in scratch for kInt8Depth columns.
struct Unpacked {
  explicit Unpacked(unsigned char* scratch)
      : bytes(scratch),
        scale(reinterpret_cast<float*>(scratch + kPanelRows * kInt8Depth)),
        sum(scale + kNumbers),
        zero(sum + kNumbers) {}

  static constexpr std::int64_t kNumbers = kPanelRows * (kInt8Depth / kInt8Block);
  unsigned char* bytes;  // [columns / 4][kParts][kVecBytes]
  float* scale;          // [blocks][kPanelRows]
  float* sum;            // of the block's weights, likewise
  float* zero;           // likewise; used when zeros of bytes are there
};

template <bool kNibbles>
void unpack_vector(const Int8Task& t, int v, std::int64_t begin, std::int64_t count,
                   const Unpacked& out) {
  constexpr std::int64_t kUnit = unit_columns<kNibbles>();
  const unsigned char* codes = vector_of_panel(t, v) + begin / kUnit * kUnitBytes;
  unsigned char* bytes = out.bytes + v * kVecBytes;
  const Ints ones = iset8(1);
  for (std::int64_t b = 0; b < count / kInt8Block; ++b) {
    const GroupNumbers numbers(t.w, t.panel, v, (begin + b * kInt8Block) / t.w.group);
    const Ints zero = kNibbles ? ispread(numbers.zeros) : izero();
    Ints sum = izero();
    for (int k = 0; k < kInt8Block; k += kUnit, codes += kUnitBytes) {
      const Ints packed = iload(codes);
      if constexpr (kNibbles) {
        const Halves w = nibbles(packed, zero);
        istore(bytes, w.low);
        istore(bytes + kParts * kVecBytes, w.high);
        sum = idot(idot(sum, ones, w.low), ones, w.high);
        bytes += 2 * kParts * kVecBytes;
      } else {
        istore(bytes, packed);
        sum = idot(sum, ones, packed);
        bytes += kParts * kVecBytes;
      }
    }
    const std::int64_t at = b * kPanelRows + v * kLanes;
    vstore(out.scale + at, numbers.scale);
    vstore(out.sum + at, ifloat(sum));
    if (!kNibbles && numbers.zeros != nullptr) vstore(out.zero + at, ifloat8(numbers.zeros));
  }
}

// Adds rows [row, row + M) times blocks [first, last) of the unpacked columns, which belong to one
// group, to y, [M][kNv] vectors in memory.
template <int M>
inline void int8_tile_group(const Int8Task& t, std::int64_t row, int v0, std::int64_t begin,
                            std::int64_t first, std::int64_t last, const Unpacked& w, float* y) {
  Vec part[M][kNv];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) part[i][v] = vzero();
  }
  const unsigned char* q = t.x.q + row * t.x.stride + begin + first * kInt8Block;
  const unsigned char* bytes =
      w.bytes + first * (kInt8Block / 4) * kParts * kVecBytes + v0 * kVecBytes;
  const bool has_zeros = !t.w.nibbles && t.w.zeros != nullptr;
  const std::int64_t numbers = first * kPanelRows + v0 * kLanes;
  const float* sum_w = w.sum + numbers;
  const float* zero_w = w.zero + numbers;
  std::int64_t at = row * t.x.blocks + begin / kInt8Block + first;
  for (std::int64_t b = first; b < last; ++b, ++at, sum_w += kPanelRows, zero_w += kPanelRows) {
    Ints sum[M][kNv];
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) sum[i][v] = izero();
    }
    for (int k = 0; k < kInt8Block; k += 4, q += 4, bytes += kParts * kVecBytes) {
      Ints wv[kNv];
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) wv[v] = iload(bytes + v * kVecBytes);
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
        const Ints x = ibroadcast4(q + i * t.x.stride);
#pragma GCC unroll 2
        for (int v = 0; v < kNv; ++v) sum[i][v] = idot(sum[i][v], x, wv[v]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const Vec scale = vset(t.x.scale[at + i * t.x.blocks]);
      const Vec offset = vset(t.x.offset[at + i * t.x.blocks]);
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) {
        part[i][v] = vfma(vload(sum_w + v * kLanes), offset, part[i][v]);
        part[i][v] = vfma(ifloat(sum[i][v]), scale, part[i][v]);
      }
      if (has_zeros) {
        const Vec total = vset(-t.x.sum[at + i * t.x.blocks]);
#pragma GCC unroll 2
        for (int v = 0; v < kNv; ++v) {
          part[i][v] = vfma(vload(zero_w + v * kLanes), total, part[i][v]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) {
      float* to = y + (i * kNv + v) * kLanes;
      vstore(to, vfma(part[i][v], vload(w.scale + numbers + v * kLanes), vload(to)));
    }
  }
}

// Rows [row, row + M) times the unpacked columns [begin, begin + count), vectors [v0, v0 + kNv).
template <int M>
void int8_tile(const Int8Task& t, std::int64_t row, int v0, std::int64_t begin, std::int64_t count,
               const Unpacked& w) {
  // In memory: the registers hold the sums of a block and of a group.
  alignas(64) float y[M * kNv * kLanes] = {};
  for (std::int64_t first = 0; first < count / kInt8Block;) {
    const std::int64_t column = begin + first * kInt8Block;
    const std::int64_t left = (t.w.group - column % t.w.group) / kInt8Block;
    const std::int64_t last = first + left < count / kInt8Block ? first + left : count / kInt8Block;
    int8_tile_group<M>(t, row, v0, begin, first, last, w, y);
    first = last;
  }
  Vec result[M][kNv];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) result[i][v] = vload(y + (i * kNv + v) * kLanes);
  }
  store_tile<M>(result, output_of(t, row, v0, begin == 0));
}

// int8_tile for a number of rows known at run time.
template <int M = kTileRows>
inline void int8_tile_rows(std::int64_t rows, const Int8Task& t, std::int64_t row, int v0,
                           std::int64_t begin, std::int64_t count, const Unpacked& w) {
  if (rows == M) return int8_tile<M>(t, row, v0, begin, count, w);
  if constexpr (M > 1) int8_tile_rows<M - 1>(rows, t, row, v0, begin, count, w);
}

void int8_blocked(const Int8Task& t) {
  const Unpacked w(t.scratch);
  const std::int64_t steps = (t.m + kTileRows - 1) / kTileRows;
  for (std::int64_t begin = 0; begin < t.w.cols; begin += kInt8Depth) {
    const std::int64_t count = t.w.cols - begin < kInt8Depth ? t.w.cols - begin : kInt8Depth;
    for (int v = 0; v < kParts; ++v) {
      if (t.w.nibbles) {
        unpack_vector<true>(t, v, begin, count, w);
      } else {
        unpack_vector<false>(t, v, begin, count, w);
      }
    }
    const std::int64_t unit = t.w.nibbles ? unit_columns<true>() : unit_columns<false>();
    AheadReader ahead({.data = vector_of_panel(t, 0) + (begin + count) / unit * kUnitBytes,
                       .stride = 0,
                       .rows = 1,
                       .bytes = count / unit * kUnitBytes},
                      steps);
    for (std::int64_t row = 0; row < t.m; row += kTileRows) {
      ahead.step();
      const std::int64_t rows = t.m - row < kTileRows ? t.m - row : kTileRows;
      for (int v = 0; v < kParts; v += kNv) {
        int8_tile_rows(rows, t, row, v, begin, count, w);
      }
    }
  }
}
