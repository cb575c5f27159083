// Where the sums of dot products along the rows of a weight go. Included inside an anonymous
// namespace of an ISA unit.

// acc[s][i]: part s of the lanes of the product with row i of x. Task: of gemv or of bf16_direct.
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
