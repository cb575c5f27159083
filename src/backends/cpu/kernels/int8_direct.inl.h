// Few activation rows against the panels as they lie in memory.
//
//   for each block: for each unit of 64 bytes: w = nibbles - zero
//     sum_w += w . 1; for each row: sum[i] += q[i] . w       (32-bit integers)
//   part[i] += scale_x * sum[i] + offset_x * sum_w;  for each group: y[i] += scale_w * part[i]
//
// The sums of the weights are kept for the rows of x that come after the first four.
// Bound: memory bandwidth; from four rows on the products.
// Included inside an anonymous namespace of an ISA unit.

constexpr int kDirectTile = 4;  // rows of x at once

// Rows [row, row + M) of x times vectors [v0, v0 + kNv) of the panel. kLater: not the first ones.
template <bool kNibbles, int M, bool kLater>
void int8_direct_vectors(const Int8Task& t, std::int64_t row, int v0) {
  Vec y[M][kNv];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) y[i][v] = vzero();
  }
  const unsigned char* codes[kNv];
#pragma GCC unroll 2
  for (int v = 0; v < kNv; ++v) codes[v] = vector_of_panel(t, v0 + v);
  const Ints ones = iset8(1);
  float* const kept = reinterpret_cast<float*>(t.scratch) + v0 * kLanes;  // [blocks][kPanelRows]
  const bool keep = M == kDirectTile && t.m > M;
  std::int64_t block = 0;
  for (std::int64_t g = 0; g < t.w.groups; ++g) {
    GroupNumbers numbers[kNv];
    Ints zero[kNv];
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) {
      numbers[v] = GroupNumbers(t.w, t.panel, v0 + v, g);
      zero[v] = kNibbles ? ispread(numbers[v].zeros) : izero();
    }
    Vec part[M][kNv];
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) part[i][v] = vzero();
    }
    for (const std::int64_t end = block + t.w.group / kInt8Block; block < end; ++block) {
      Ints sum[M][kNv];
      Ints sum_w[kNv];
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) {
        sum_w[v] = izero();
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i) sum[i][v] = izero();
      }
      const unsigned char* q = t.x.q + row * t.x.stride + block * kInt8Block;
      constexpr std::int64_t kUnit = unit_columns<kNibbles>();
#pragma GCC unroll 8
      for (int k = 0; k < kInt8Block; k += kUnit, q += kUnit) {
#pragma GCC unroll 2
        for (int v = 0; v < kNv; ++v) {
          const Ints packed = iload(codes[v]);
          __builtin_prefetch(codes[v] + kPrefetch);
          codes[v] += kUnitBytes;
          if constexpr (kNibbles) {
            const Halves w = nibbles(packed, zero[v]);
            if constexpr (!kLater) sum_w[v] = idot(idot(sum_w[v], ones, w.low), ones, w.high);
#pragma GCC unroll 8
            for (int i = 0; i < M; ++i) {
              const unsigned char* qi = q + i * t.x.stride;
              sum[i][v] = idot(sum[i][v], ibroadcast4(qi), w.low);
              sum[i][v] = idot(sum[i][v], ibroadcast4(qi + 4), w.high);
            }
          } else {
            if constexpr (!kLater) sum_w[v] = idot(sum_w[v], ones, packed);
#pragma GCC unroll 8
            for (int i = 0; i < M; ++i) {
              sum[i][v] = idot(sum[i][v], ibroadcast4(q + i * t.x.stride), packed);
            }
          }
        }
      }
      Vec total_w[kNv];
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) {
        float* const at = kept + block * kPanelRows + v * kLanes;
        total_w[v] = kLater ? vload(at) : ifloat(sum_w[v]);
        if (!kLater && keep) vstore(at, total_w[v]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
        const std::int64_t at = (row + i) * t.x.blocks + block;
#pragma GCC unroll 2
        for (int v = 0; v < kNv; ++v) {
          part[i][v] = vfma(total_w[v], vset(t.x.offset[at]), part[i][v]);
          part[i][v] = vfma(ifloat(sum[i][v]), vset(t.x.scale[at]), part[i][v]);
          if (!kNibbles && numbers[v].zeros != nullptr) {
            part[i][v] = vfma(ifloat8(numbers[v].zeros), vset(-t.x.sum[at]), part[i][v]);
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) y[i][v] = vfma(part[i][v], numbers[v].scale, y[i][v]);
    }
  }
  store_tile<M>(y, output_of(t, row, v0, true));
}

template <bool kNibbles>
void int8_direct_any(const Int8Task& t) {
  over_panel(t, [&]<int M>(std::int64_t row, int v) {
    if (row == 0) {
      int8_direct_vectors<kNibbles, M, false>(t, row, v);
    } else {
      int8_direct_vectors<kNibbles, M, true>(t, row, v);
    }
  });
}

constexpr std::int64_t kDirectRows = 24;

void int8_direct(const Int8Task& t) {
  t.w.nibbles ? int8_direct_any<true>(t) : int8_direct_any<false>(t);
}
