// Where the sums of a tile go. Included inside an anonymous namespace of an ISA unit.

constexpr int kNr = kNv * kLanes;

struct TileOutput {
  float* c;
  std::int64_t stride;
  std::int64_t n;  // columns to store, at most kNr
  const float* bias;
  bool add;
};

// rows.operator()<M>(row) for all m rows of x, four at a time, then the one to three that are left.
template <class Rows>
inline void rows_in_fours(std::int64_t m, const Rows& rows) {
  std::int64_t row = 0;
  for (; row + 4 <= m; row += 4) rows.template operator()<4>(row);
  switch (m - row) {
    case 3:
      return rows.template operator()<3>(row);
    case 2:
      return rows.template operator()<2>(row);
    case 1:
      return rows.template operator()<1>(row);
    default:
      return;
  }
}

template <int M>
inline void store_whole(const Vec (&acc)[M][kNv], const TileOutput& out) {
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) {
      float* c = out.c + i * out.stride + v * kLanes;
      Vec sum = acc[i][v];
      if (out.add) sum = vadd(sum, vload(c));
      if (out.bias != nullptr) sum = vadd(sum, vload(out.bias + v * kLanes));
      vstore(c, sum);
    }
  }
}

template <int M>
inline void store_part(const Vec (&acc)[M][kNv], const TileOutput& out) {
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) {
      const std::int64_t left = out.n - v * kLanes;
      if (left <= 0) continue;
      const std::int64_t n = left < kLanes ? left : kLanes;
      float* c = out.c + i * out.stride + v * kLanes;
      Vec sum = acc[i][v];
      if (out.add) sum = vadd(sum, vload_n(c, n));
      if (out.bias != nullptr) sum = vadd(sum, vload_n(out.bias + v * kLanes, n));
      vstore_n(c, sum, n);
    }
  }
}

template <int M>
inline void store_tile(const Vec (&acc)[M][kNv], const TileOutput& out) {
  if (out.n == kNr) {
    store_whole<M>(acc, out);
  } else {
    store_part<M>(acc, out);
  }
}
