// Scores of one query row against some keys, and what becomes of them: a running softmax (Milakov
// and Gimelshein 2018), so that no score row is ever whole. Included inside an anonymous namespace
// of an ISA unit.

inline std::int64_t round_up(std::int64_t n, std::int64_t step) {
  return (n + step - 1) / step * step;
}

// Caps and biases scores of the keys key + [0, n).
inline void adjust(const AttentionTask& t, std::int64_t head, std::int64_t key, std::int64_t n,
                   float* scores) {
  if (t.softcap > 0) {
    const Vec cap = vset(t.softcap);
    for (std::int64_t j = 0; j < n; j += kLanes) {
      vstore(scores + j, vmul(cap, vtanh(vdiv(vload(scores + j), cap))));
    }
  }
  if (t.alibi_slopes != nullptr) {
    const Vec slope = vset(t.alibi_slopes[head]);
    for (std::int64_t j = 0; j < n; j += kLanes) {
      const Vec at = vadd(vset(static_cast<float>(key + j)), viota());
      vstore(scores + j, vfma(slope, at, vload(scores + j)));
    }
  }
}

// The running softmax of one row over one block of keys: scores become weights (zero outside
// [from, to)), and what was summed before is scaled to the new maximum.
inline void soften(float* scores, std::int64_t from, std::int64_t to, std::int64_t n,
                   float* largest, float* sum, float* output, std::int64_t columns) {
  const std::int64_t padded = round_up(n, kLanes);
  for (std::int64_t j = 0; j < from; ++j) scores[j] = -__builtin_inff();
  for (std::int64_t j = to; j < padded; ++j) scores[j] = -__builtin_inff();
  Vec top = vset(*largest);
  for (std::int64_t j = 0; j < padded; j += kLanes) top = vmax(top, vload(scores + j));
  const float new_largest = vhmax(top);
  if (new_largest > *largest) {
    const Vec shrink = vexp(vset(*largest - new_largest));
    for (std::int64_t d = 0; d < columns; d += kLanes)
      vstore(output + d, vmul(shrink, vload(output + d)));
    float factor[kLanes];
    vstore(factor, shrink);
    *sum *= factor[0];
    *largest = new_largest;
  }
  const Vec shift = vset(*largest);
  Vec total = vzero();
  for (std::int64_t j = 0; j < padded; j += kLanes) {
    const Vec p = vexp(vsub(vload(scores + j), shift));
    total = vadd(total, p);
    vstore(scores + j, p);
  }
  *sum += vsum(total);
}

inline void write_output(const float* output, float sum, std::int64_t head_dim, float* out) {
  const Vec scale = vset(sum == 0 ? 0.0f : 1.0f / sum);  // a row that sees no key gives zeros
  for (std::int64_t d = 0; d < head_dim; d += kLanes) {
    const std::int64_t n = head_dim - d < kLanes ? head_dim - d : kLanes;
    vstore_n(out + d, vmul(scale, vload(output + d)), n);
  }
}
