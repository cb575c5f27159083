// Few activation rows against weights of tables in panels (table_panel_kernels.h).
//
//   for each group: for each unit: load 64 bytes; for each of its columns k, 8 or 4:
//       w = value of the code (moved down, one permutation; of bytes two and a multiply-add, or a
//       conversion from F16)
//       for each row of x: part[i] += w * x[i][k]
//     y[i] += scale * part[i]
//
// Bound: memory bandwidth where the units of 512 bits take one step, else instructions.
// Included inside an anonymous namespace of an ISA unit.

constexpr std::int64_t kTableAhead = 4096;

// What codes stand for. Bits above a code mean nothing.
class NibbleValues {
 public:
  static constexpr int kColumns = 8;  // of a unit

  explicit NibbleValues(const TablePanelView& w)
      : low_(load_as<Floats>(w.values)), high_(load_as<Floats>(w.values + 16 - kLanes)) {}
  // body(column, its values)
  template <class Body>
  void each(const unsigned char* unit, const Body& body) const {
    const auto words = load_as<Unsigned>(unit);
#pragma GCC unroll 8
    for (int k = 0; k < kColumns; ++k) body(k, at(words, k));
  }

 private:
  Vec at(Unsigned unit, int k) const {
    const Whole code = bits_as<Whole>(unit >> (8 * (k % 4) + 4 * (k / 4)));
    if constexpr (kLanes == 16) return as_vec(shuffled(low_, code));
    return as_vec((code & 8) != 0 ? shuffled(high_, code) : shuffled(low_, code));
  }

  Floats low_, high_;
};

class ByteValues {
 public:
  static constexpr int kColumns = 4;

  explicit ByteValues(const TablePanelView& w)
      : mantissa_(w.mantissa),
        steps_{load_as<Floats>(w.steps), load_as<Floats>(w.steps + kLanes)},
        values_{load_as<Floats>(w.values), load_as<Floats>(w.values + kLanes)} {}
  template <class Body>
  void each(const unsigned char* unit, const Body& body) const {
    const auto words = load_as<Unsigned>(unit);
#pragma GCC unroll 4
    for (int k = 0; k < kColumns; ++k) body(k, at(words, k));
  }

 private:
  Vec at(Unsigned unit, int k) const {
    const Unsigned code = unit >> 8 * k;
    const Whole binade = bits_as<Whole>(code >> mantissa_);
    const Whole above = bits_as<Whole>(code & ((1u << mantissa_) - 1));
    return vfma(as_vec(__builtin_convertvector(above, Floats)),
                as_vec(shuffled(steps_[0], steps_[1], binade)),
                as_vec(shuffled(values_[0], values_[1], binade)));
  }

  int mantissa_;
  Floats steps_[2], values_[2];  // 32 of each, where a vector holds 16
};

inline Vec exponent_scales(const unsigned char* p) {
  const Whole bits = widened(load_as<Bytes>(p)) << 23;
  return as_vec(bits_as<Floats>(bits == 0 ? Whole{} + 0x00400000 : bits));  // 2^-127
}

inline Vec e4m3_scales(const unsigned char* p, float factor) {
  constexpr int kExponent = 127 - 7;
  const Whole code = widened(load_as<Bytes>(p));
  const Whole bits = (code << 20) + (kExponent << 23);
  const Floats subnormal = bits_as<Floats>(bits + (1 << 23)) - 0x1p-6f;
  return as_vec((code < 8 ? subnormal : bits_as<Floats>(bits)) * factor);
}

// Of the rows of one vector in one group.
inline Vec panel_scales(const TablePanelView& w, std::int64_t panel, int part, std::int64_t group) {
  const std::int64_t at = (panel * w.groups + group) * kPanelRows + part * kLanes;
  const unsigned char* const p = w.scales + at * panel_scale_bytes(w.scale_type);
  switch (w.scale_type) {
    case PanelScale::kF32:
      return load_floats<Storage::kF32>(p);
    case PanelScale::kF16:
      return load_floats<Storage::kF16>(p);
    case PanelScale::kBF16:
      return load_floats<Storage::kBF16>(p);
    case PanelScale::kE8M0:
      return exponent_scales(p);
    default:
      return e4m3_scales(p, w.factor);
  }
}

// Rows [row, row + M) of x times vectors [part, part + kNv) of the panel.
template <class Values, int M>
void table_panel_vectors(const TablePanelTask& t, std::int64_t row, int part) {
  constexpr int kColumns = Values::kColumns;
  constexpr int kChains = M == 1 ? 4 : M == 2 ? 2 : 1;  // of additions, for each of x and rows of w
  const auto each_sum = [](const auto& body) {
#pragma GCC unroll 4
    for (int s = 0; s < kChains; ++s) {
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < kNv; ++v) body(s, i, v);
      }
    }
  };
  const Values values(t.w);
  const float* x = t.x + row * t.x_stride;
  const unsigned char* codes =
      t.w.codes + t.panel * t.w.panel_bytes + part * std::int64_t{4 * kLanes};
  Vec y[M][kNv];
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) y[i][v] = vzero();
  }
  for (std::int64_t g = 0; g < t.w.groups; ++g) {
    Vec sums[kChains][M][kNv];
    each_sum([&](int s, int i, int v) { sums[s][i][v] = vzero(); });
    for (std::int64_t k = 0; k < t.w.group; k += kColumns, x += kColumns, codes += kUnitBytes) {
#pragma GCC unroll 2
      for (int v = 0; v < kNv; ++v) {
        __builtin_prefetch(codes + v * 4 * kLanes + kTableAhead);
        values.each(
            codes + v * 4 * kLanes, [&](int c, Vec w) __attribute__((always_inline)) {
#pragma GCC unroll 4
              for (int i = 0; i < M; ++i) {
                Vec& sum = sums[c % kChains][i][v];
                sum = vfma(w, vset(x[i * t.x_stride + c]), sum);
              }
            });
      }
    }
    Vec scale[kNv];
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) scale[v] = panel_scales(t.w, t.panel, part + v, g);
    each_sum([&](int s, int i, int v) { y[i][v] = vfma(sums[s][i][v], scale[v], y[i][v]); });
  }
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kNv; ++v) y[i][v] = vmul(y[i][v], vset(t.w.unit));
  }
  store_tile<M>(y, output_of(t, row, part, true));
}

template <class Values>
void table_panel_of(const TablePanelTask& t) {
  over_panel(
      t, [&]<int M>(std::int64_t row, int part) { table_panel_vectors<Values, M>(t, row, part); });
}

void table_panels(const TablePanelTask& t) {
#if defined(__AVX512F__)
  if (t.w.halves) {
    return t.w.down > 0 ? table_panel_of<HalfValues<1>>(t) : table_panel_of<HalfValues<0>>(t);
  }
#endif
  if constexpr (kLanes == 16) {
    if (t.w.bits == 8) return table_panel_of<ByteValues>(t);
  }
  table_panel_of<NibbleValues>(t);
}
