// The sums of int8_token.inl.h on tiles: 32 activation rows times a panel. The same integers and
// the same order of float32 sums, so the same bits.
//
//   for each run of up to 512 columns (whole groups, or a part of one), for each 32 rows,
//     for each group: sum = less_w (or what the run before left)
//       for each 64 columns: load 2 tiles of rows (as they are) and 2 of the panel; 4 tile products
//       where the group ends: y += scale_w * (sum - zero * sum of q)
//   y *= scale_x
//
// Bound: tile products (16 cycles each), and beside them 64 vectors of sums for every group. The
// weights of a run, 16 KiB, stay in the first-level cache; rows and sums come from the second.
// Included inside an anonymous namespace of an ISA unit.

constexpr std::int64_t kAmxByteStep = 64;  // columns of a tile product
constexpr std::int64_t kAmxByteRun = 512;  // columns of a run
constexpr std::int64_t kAmxFewRows = 4;    // up to so many, vectors are faster: the rest is padding
constexpr std::int64_t kAmxTokenRows = token_rows(1);  // rows of a block
static_assert(kAmxTokenRows == 2 * kAmxRows);
constexpr std::int64_t kAmxBlock = kAmxTokenRows * kPanelRows;  // sums of a block
static_assert(kRaised == 128 && kParts == 2 && kNv == 2);

// sum[32, 32] += q * w of k columns; kLow: only the first 16 rows are wanted. Without `resume` sums
// begin with `start`, one number a column.
template <bool kLow>
inline void amx_byte_block(const unsigned char* q, std::int64_t q_stride, const unsigned char* w,
                           std::int64_t k, const int* start, bool resume, int* sum) {
  constexpr std::size_t kStride = 4 * kPanelRows;
  int* const low = sum + kAmxRows * kPanelRows;
  const std::size_t stride = resume ? kStride : 0;
  const int* const from = resume ? sum : start;
  _tile_loadd(0, from, stride);
  _tile_loadd(1, from + kLanes, stride);
  if constexpr (!kLow) {
    const int* const from_low = resume ? low : start;
    _tile_loadd(2, from_low, stride);
    _tile_loadd(3, from_low + kLanes, stride);
  }
  const auto rows = static_cast<std::size_t>(q_stride);
  for (; k > 0; k -= kAmxByteStep, q += kAmxByteStep, w += kAmxByteStep * kPanelRows) {
    _tile_loadd(4, q, rows);
    _tile_loadd(6, w, kUnitBytes);
    _tile_dpbusd(0, 4, 6);
    _tile_loadd(7, w + kVecBytes, kUnitBytes);
    _tile_dpbusd(1, 4, 7);
    if constexpr (!kLow) {
      _tile_loadd(5, q + kAmxRows * q_stride, rows);
      _tile_dpbusd(2, 5, 6);
      _tile_dpbusd(3, 5, 7);
    }
  }
  _tile_stored(0, sum, kStride);
  _tile_stored(1, sum + kLanes, kStride);
  if constexpr (!kLow) {
    _tile_stored(2, low, kStride);
    _tile_stored(3, low + kLanes, kStride);
  }
}

// y += scale_w * (sum - zero * sum of q) for rows [row, row + rows) and one group.
inline void amx_scale_group(const TokenTask& t, std::int64_t row, std::int64_t rows, std::int64_t g,
                            const int* sum, float* y) {
  for (int v = 0; v < kParts; ++v) {
    const GroupNumbers numbers(t.w, t.panel, v, g);
    const Vec zeros = t.q_sums != nullptr ? ifloat8(numbers.zeros) : vzero();
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t at = i * kPanelRows + v * kLanes;
      Vec total = ifloat(iload(sum + at));
      if (t.q_sums != nullptr) {
        total = vfma(zeros, vset(-t.q_sums[(row + i) * t.w.groups + g]), total);
      }
      vstore(y + at, vfma(total, numbers.scale, vload(y + at)));
    }
  }
}

// What the sums of all rows need between two runs.
struct AmxSums {
  int* sum;  // [blocks of rows][32][32]
  float* y;  // the same
};

// Columns [first, last), which are within one group or whole groups, of one block of rows.
inline void amx_token_run(const TokenTask& t, std::int64_t row, const unsigned char* bytes,
                          const int* less_w, std::int64_t first, std::int64_t last,
                          const AmxSums& sums) {
  const std::int64_t block = row / kAmxTokenRows * kAmxBlock;
  const std::int64_t rows = t.m - row < kAmxTokenRows ? t.m - row : kAmxTokenRows;
  int* const sum = sums.sum + block;
  for (std::int64_t k = first; k < last;) {
    const std::int64_t g = k / t.w.group;
    const std::int64_t group_end = (g + 1) * t.w.group;
    const std::int64_t end = group_end < last ? group_end : last;
    const bool resume = k > g * t.w.group;
    const unsigned char* const q = t.q + row * t.q_stride + k;
    const unsigned char* const w = bytes + k * kPanelRows;
    const int* const start = less_w + g * kPanelRows;
    if (rows <= kAmxRows) {
      amx_byte_block<true>(q, t.q_stride, w, end - k, start, resume, sum);
    } else {
      amx_byte_block<false>(q, t.q_stride, w, end - k, start, resume, sum);
    }
    if (end == group_end) amx_scale_group(t, row, rows, g, sum, sums.y + block);
    k = end;
  }
}

inline void amx_token_store(const TokenTask& t, const float* sums) {
  for (std::int64_t row = 0; row < t.m; ++row, sums += kPanelRows) {
    Vec y[1][kNv];
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) y[0][v] = vmul(vload(sums + v * kLanes), vset(t.scale[row]));
    store_tile<1>(y, output_of(t, row, 0, true));
  }
}

void amx_token(const TokenTask& t) {
  if (t.m <= kAmxFewRows) return int8_token(t);
  const TokenPanel panel = token_panel(t);
  const std::int64_t sums_of_all = token_rows(t.m) * kPanelRows;
  AmxSums sums;
  sums.sum = reinterpret_cast<int*>(t.scratch + token_panel_bytes(t.w));
  sums.y = reinterpret_cast<float*>(sums.sum + sums_of_all);
  for (std::int64_t i = 0; i < sums_of_all; i += kLanes) vstore(sums.y + i, vzero());
  const WholeTiles tiles;
  const std::int64_t step =
      t.w.group < kAmxByteRun ? kAmxByteRun / t.w.group * t.w.group : kAmxByteRun;
  for (std::int64_t first = 0, last = 0; first < t.w.cols; first = last) {
    const std::int64_t group_end = (first / t.w.group + 1) * t.w.group;
    const std::int64_t limit = t.w.group > kAmxByteRun ? group_end : t.w.cols;
    last = first + step < limit ? first + step : limit;
    for (std::int64_t row = 0; row < t.m; row += kAmxTokenRows) {
      amx_token_run(t, row, panel.bytes, panel.less_w, first, last, sums);
    }
  }
  amx_token_store(t, sums.y);
}
