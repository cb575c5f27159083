// Where the sums of dot products along the rows of a weight go, and loops over rows. Included
// inside an anonymous namespace of an ISA unit.

// acc[s][i]: part s of the lanes of the product with row i of x. Task: of gemv, bf16_direct or
// bf16_blocks.
template <int S, int M, class Task>
inline void store_dots(const Vec (&acc)[S][M], const Task& t, std::int64_t row, std::int64_t i0) {
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
    Vec sum = acc[0][i];
#pragma GCC unroll 4
    for (int s = 1; s < S; ++s) sum = vadd(sum, acc[s][i]);
    float& y = t.y[(i0 + i) * t.y_stride + row];
    float value = vsum(sum);
    if (t.add) value += y;
    if (t.bias != nullptr) value += t.bias[row];
    y = value;
  }
}

template <class Weight, int M, class Task>
void row_range(const Task& t, std::int64_t i0) {
  for (std::int64_t row = t.row_begin; row < t.row_end; ++row) {
    Weight::template row<M>(t, row, i0);
  }
}

// All rows of x, four at a time, with the rows of a weight that Weight::row<M>(task, row, i0)
// multiplies with M of them.
template <class Weight, class Task>
void rows_from(const Task& t) {
  std::int64_t i0 = 0;
  for (; i0 + 4 <= t.m; i0 += 4) row_range<Weight, 4>(t, i0);
  switch (t.m - i0) {
    case 3:
      return row_range<Weight, 3>(t, i0);
    case 2:
      return row_range<Weight, 2>(t, i0);
    case 1:
      return row_range<Weight, 1>(t, i0);
    default:
      return;
  }
}
