// Sums over runs of elements, and what is chosen by them (formats/span_kernels.h), in the vectors
// of spans.inl.h.

constexpr int kHalfLanes = kLanes / 2;
typedef float HalfFloats __attribute__((vector_size(4 * kHalfLanes)));
typedef std::int32_t HalfWhole __attribute__((vector_size(4 * kHalfLanes)));
typedef double Doubles __attribute__((vector_size(8 * kHalfLanes)));

struct SixteenSums {
  Doubles sums[16 / kHalfLanes];

  // of(i): the terms i ... of sixteen.
  template <class Of>
  void add(const Of& of) {
#pragma GCC unroll 8
    for (int k = 0; k < 16 / kHalfLanes; ++k) sums[k] += of(k * kHalfLanes);
  }
  void add_squares(const float* values, const float* w) {
    add([&](int i) {
      const Doubles d = __builtin_convertvector(load_as<HalfFloats>(values + i), Doubles) -
                        __builtin_convertvector(load_as<HalfFloats>(w + i), Doubles);
      return d * d;
    });
  }
  void add_squares(const float* values, const float* w, std::int64_t count) {
    std::int64_t i = 0;
    for (; i + 16 <= count; i += 16) add_squares(values + i, w + i);
    if (i == count) return;
    float tail[2][16] = {};
    for (std::int64_t k = 0; i + k < count; ++k) tail[0][k] = values[i + k];
    for (std::int64_t k = 0; i + k < count; ++k) tail[1][k] = w[i + k];
    add_squares(tail[0], tail[1]);
  }
  void add_magnitudes(const float* w) {
    add([&](int i) {
      const auto bits = load_as<HalfWhole>(w + i) & 0x7fffffff;
      return __builtin_convertvector(bits_as<HalfFloats>(bits), Doubles);
    });
  }
  double total() const {
    Doubles s[16 / kHalfLanes];
    __builtin_memcpy(s, sums, sizeof(s));
    for (int half = 8; half >= kHalfLanes; half /= 2) {
      const int vectors = half / kHalfLanes;
      for (int i = 0; i < vectors; ++i) s[i] += s[i + vectors];
    }
    double left[kHalfLanes];
    __builtin_memcpy(left, s, sizeof(left));
    for (int half = kHalfLanes / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) left[i] += left[i + half];
    }
    return left[0];
  }
};

void span_squared_errors(const float* values, const float* w, std::int64_t groups,
                         std::int64_t length, double* errors) {
  for (std::int64_t g = 0; g < groups; ++g, values += length, w += length) {
    SixteenSums sums{};
    sums.add_squares(values, w, length);
    errors[g] = sums.total();
  }
}

void span_magnitude_sums(const float* w, std::int64_t groups, std::int64_t length, double* sums) {
  for (std::int64_t g = 0; g < groups; ++g, w += length) {
    SixteenSums all{};
    std::int64_t i = 0;
    for (; i + 16 <= length; i += 16) all.add_magnitudes(w + i);
    if (i < length) {
      float tail[16] = {};
      for (std::int64_t k = 0; i + k < length; ++k) tail[k] = w[i + k];
      all.add_magnitudes(tail);
    }
    sums[g] = all.total();
  }
}

// The squared error of one group as it is defined.
double group_error(const TableView& table, float scale, const float* w, std::int64_t length) {
  constexpr std::int64_t kAtOnce = 64;
  std::uint8_t codes[kAtOnce];
  float values[kAtOnce];
  SixteenSums sums{};
  for (std::int64_t i = 0; i < length; i += kAtOnce) {
    const std::int64_t count = length - i < kAtOnce ? length - i : kAtOnce;
    span_table_codes(table, &scale, w + i, 1, count, codes);
    span_table_values(table, &scale, codes, 1, count, values);
    sums.add_squares(values, w + i, count);
  }
  return sums.total();
}

bool is_second_better(const TableView& table, float first, float second, const float* w,
                      std::int64_t length) {
  return group_error(table, second, w, length) < group_error(table, first, w, length);
}

// Lane i becomes lane i ^ By.
template <int By, class V>
inline V swapped(V v) {
  static constexpr std::int32_t kIndex[] = {0 ^ By,  1 ^ By,  2 ^ By,  3 ^ By, 4 ^ By,  5 ^ By,
                                            6 ^ By,  7 ^ By,  8 ^ By,  9 ^ By, 10 ^ By, 11 ^ By,
                                            12 ^ By, 13 ^ By, 14 ^ By, 15 ^ By};
  return shuffled(v, load_as<Whole>(kIndex));
}

// Squared errors of both scales in float32. Each term is within a few parts of 2^24 of its value,
// and so are sums of the few that a lane has.
struct ErrorDifference {
  static constexpr std::int64_t kMostTerms = 512;
  static constexpr float kCertain = 0x1p-16f;  // more than 32 sums of a lane and their terms lose

  Floats difference{};  // of the second less the first
  Floats sum{};

  void add(Floats first, Floats second) {
    const Floats a = first * first, b = second * second;
    difference += b - a;
    sum += a + b;
  }
  // 1: the second has less error; 0: not; -1: float32 cannot tell.
  int choice() const {
    constexpr int kHalf = kLanes / 2;
    const Floats d = difference + swapped<kHalf>(difference), s = sum + swapped<kHalf>(sum);
    static constexpr std::int32_t kLane[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Floats both = load_as<Whole>(kLane) < kHalf ? d : s;
    if constexpr (kHalf > 4) both += swapped<4>(both);
    if constexpr (kHalf > 2) both += swapped<2>(both);
    both += swapped<1>(both);
    const float least = both[0] < 0 ? -both[0] : both[0], all = both[kHalf];
    // Squares that are subnormal or infinite say nothing.
    if (!(least > kCertain * all && all > 1e-25f && all < 1e30f)) return -1;
    return static_cast<int>(__builtin_bit_cast(std::uint32_t, static_cast<float>(both[0])) >> 31);
  }
};

// Values of a small float type in float32: adding and taking off a power of two rounds to it.
struct QuickRounding {
  Floats top, normal;
  Unsigned lift;

  static bool fits(const FloatRounding* r) {
    return r != nullptr && r->top < 1e15f && r->smallest_normal > 1e-15f;
  }
  // Whether `count` scales keep all that is computed with them normal.
  static bool fits(const float* scales, std::int64_t count) {
    bool all = true;
    for (std::int64_t i = 0; i < count; ++i) all &= scales[i] > 1e-15f && scales[i] < 1e15f;
    return all;
  }
  explicit QuickRounding(const FloatRounding& r)
      : top(lanes_of<Floats>(r.top)),
        normal(lanes_of<Floats>(r.smallest_normal)),
        lift(lanes_of<Unsigned>(static_cast<std::uint32_t>(23 - r.mantissa) << 23)) {}

  // Magnitudes, divided by scale, rounded and multiplied by it, less what they were.
  Floats error(Floats size, Floats scale) const {
    Floats q = size / scale;
    q = q > top ? top : q;
    const Unsigned exponent = bits_as<Unsigned>(q < normal ? normal : q) & 0x7f800000u;
    const Floats magic = bits_as<Floats>(exponent + lift);
    return (q + magic - magic) * scale - size;
  }
};

// choice[g] for groups of whole vectors.
void choose_quickly(const TableView& table, const float* first, const float* second, const float* w,
                    std::int64_t groups, std::int64_t length, std::uint8_t* choice) {
  const QuickRounding rounding(*table.rounding);
  for (std::int64_t g = 0; g < groups; ++g, w += length) {
    ErrorDifference errors;
    const Floats a = lanes_of<Floats>(first[g]), b = lanes_of<Floats>(second[g]);
    for (std::int64_t i = 0; i < length; i += kLanes) {
      const Floats size = bits_as<Floats>(load_as<Unsigned>(w + i) & 0x7fffffffu);
      errors.add(rounding.error(size, a), rounding.error(size, b));
    }
    int better = first[g] == second[g] ? 0 : errors.choice();  // powers of two often are
    if (better < 0) better = is_second_better(table, first[g], second[g], w, length) ? 1 : 0;
    choice[g] = static_cast<std::uint8_t>(better);
  }
}

void span_better_codes(const TableView& table, const float* first, const float* second,
                       const float* w, std::int64_t groups, std::int64_t length,
                       std::uint8_t* codes, std::uint8_t* choice) {
  const bool quick = length % kLanes == 0 && length <= ErrorDifference::kMostTerms &&
                     QuickRounding::fits(table.rounding);
  constexpr std::int64_t kAtOnce = 64;
  float chosen[kAtOnce];
  for (std::int64_t begin = 0; begin < groups; begin += kAtOnce) {
    const std::int64_t count = groups - begin < kAtOnce ? groups - begin : kAtOnce;
    const float* const scales[] = {first + begin, second + begin};
    if (quick && QuickRounding::fits(scales[0], count) && QuickRounding::fits(scales[1], count)) {
      choose_quickly(table, scales[0], scales[1], w, count, length, choice + begin);
    } else {
      for (std::int64_t i = 0; i < count; ++i) {
        const float* const from = w + i * length;
        choice[begin + i] =
            is_second_better(table, scales[0][i], scales[1][i], from, length) ? 1 : 0;
      }
    }
    // An index, for neither is the likelier one to branch to.
    for (std::int64_t i = 0; i < count; ++i) chosen[i] = scales[choice[begin + i]][i];
    span_table_codes(table, chosen, w, count, length, codes);
    w += count * length;
    codes += count * length;
  }
}

void span_trellis_step(int bits, const float* values, float w, float weight, const float* after,
                       float* before, std::uint8_t* choice) {
  const std::int64_t span = 65536 >> bits;
  Whole lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  for (std::int64_t r = 0; r < span; r += kLanes) {
    Floats least = load_as<Floats>(after + r);
    Whole at{};
    for (int n = 1; n < 1 << bits; ++n) {
      const Floats cost = load_as<Floats>(after + n * span + r);
      const Whole less = cost < least;
      least = less ? cost : least;
      at = less ? Whole{} + n : at;
    }
    const Bytes chosen = __builtin_convertvector(at, Bytes);
    __builtin_memcpy(choice + r, &chosen, sizeof(chosen));
    // 2^bits states follow each r: lane l of vector v is state v * kLanes + l.
    for (int v = 0; v < 1 << bits; ++v) {
      const std::int64_t x = (r << bits) + v * kLanes;
      const Floats d = load_as<Floats>(values + x) - w;
      const Floats cost = shuffled(least, (lane + v * kLanes) >> bits) + weight * (d * d);
      __builtin_memcpy(before + x, &cost, sizeof(cost));
    }
  }
}
