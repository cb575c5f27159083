// Sums over runs of elements, and what is chosen by them (formats/span_kernels.h), in the vectors
// of compiler_vectors.inl.h.

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

// Squared errors in float32: each term is within a few parts of 2^24 of its value, and so are sums
// of the few that a lane has.
constexpr std::int64_t kMostTerms = 512;
constexpr float kCertain = 0x1p-16f;  // more than 32 sums of a lane and their terms lose

// `better` where it is certain, and for the other ones of kLanes groups as it is defined.
inline Whole settled(const TableView& table, Whole better, Whole certain, const float* first,
                     const float* second, const float* w, std::int64_t length) {
  if (!any_lane(~certain)) return better;
  for (int g = 0; g < kLanes; ++g) {
    if (certain[g] != 0) continue;
    better[g] = is_second_better(table, first[g], second[g], w + g * length, length) ? -1 : 0;
  }
  return better;
}

// Of kLanes groups of whole vectors those for which the second scale is better.
Whole better_lanes(const TableView& table, const QuickRounding& rounding, const float* first,
                   const float* second, const float* w, std::int64_t length) {
  Floats errors_a[kLanes], errors_b[kLanes];
  for (int g = 0; g < kLanes; ++g) {
    const Floats a = lanes_of<Floats>(first[g]), b = lanes_of<Floats>(second[g]);
    Floats sum_a{}, sum_b{};
    for (std::int64_t i = 0; i < length; i += kLanes) {
      const Floats size = bits_as<Floats>(load_as<Unsigned>(w + g * length + i) & 0x7fffffffu);
      const Floats error_a = rounding.error(size, a), error_b = rounding.error(size, b);
      sum_a = i == 0 ? error_a * error_a : sum_a + error_a * error_a;
      sum_b = i == 0 ? error_b * error_b : sum_b + error_b * error_b;
    }
    errors_a[g] = sum_a;
    errors_b[g] = sum_b;
  }
  const auto added = [](Floats a, Floats b) { return a + b; };
  const Floats total_a = joined_each(errors_a, added), total_b = joined_each(errors_b, added);
  const Floats difference = total_b - total_a, sum = total_a + total_b;
  const Floats size = bits_as<Floats>(bits_as<Whole>(difference) & 0x7fffffff);
  // Squares that are subnormal or infinite say nothing. Powers of two are often the same.
  const Whole certain = ((size > kCertain * sum) & (sum > 1e-25f) & (sum < 1e30f)) |
                        (load_as<Floats>(first) == load_as<Floats>(second));
  return settled(table, difference < 0, certain, first, second, w, length);
}

// kLanes groups at a time, better(g) says for which of those from g on the second scale is. Returns
// the first one that scales beyond what is quick come with, or that is one too few.
template <class Better>
std::int64_t choose_quickly(const float* first, const float* second, std::int64_t groups,
                            float* chosen, std::uint8_t* choice, const Better& better) {
  std::int64_t g = 0;
  for (; g + kLanes <= groups; g += kLanes) {
    const auto a = load_as<Floats>(first + g), b = load_as<Floats>(second + g);
    if (any_lane(~(QuickRounding::fits(a) & QuickRounding::fits(b)))) break;
    const Whole seconds = better(g);
    const Bytes ones = __builtin_convertvector(seconds & 1, Bytes);
    const Floats scales = seconds != 0 ? b : a;
    __builtin_memcpy(choice + g, &ones, sizeof(ones));
    __builtin_memcpy(chosen + g, &scales, sizeof(scales));
  }
  return g;
}

// What is quick of the choice, and of the codes under it: how many groups of each are done.
struct QuickChoice {
  std::int64_t chosen = 0;
  std::int64_t coded = 0;
};

#if defined(__AVX512F__)
QuickChoice choose_by_slots(const TableView& table, const float* first, const float* second,
                            const float* w, std::int64_t groups, float* chosen, std::uint8_t* codes,
                            std::uint8_t* choice) {
  const Slots slots(*table.rounding);
  const SlotChoice errors(slots, first, second, w, groups / kLanes * kLanes);
  const std::int64_t done =
      choose_quickly(first, second, groups, chosen, choice, [&](std::int64_t g) {
        Floats difference;
        const bool in_slots = errors.differences(g, &difference);
        const auto a = load_as<Floats>(first + g), b = load_as<Floats>(second + g);
        const Floats unit = slots.width * vmax(a, b);
        const Whole certain = (vabs(difference) > 0x1p-8f * unit * unit) | (a == b);
        return settled(table, difference < 0, in_slots ? certain : Whole{}, first + g, second + g,
                       w + g * kLanes, kLanes);
      });
  slot_codes(table, slots, chosen, w, done, codes);
  return {done, done};
}
#endif

void span_better_codes(const TableView& table, const float* first, const float* second,
                       const float* w, std::int64_t groups, std::int64_t length,
                       std::uint8_t* codes, std::uint8_t* choice) {
  float chosen[kGroupsAtOnce];
  while (groups > 0) {
    const std::int64_t count = groups < kGroupsAtOnce ? groups : kGroupsAtOnce;
    QuickChoice done;
#if defined(__AVX512F__)
    const bool by_slots = length == kLanes && Slots::fits(table.rounding);
    if (by_slots) done = choose_by_slots(table, first, second, w, count, chosen, codes, choice);
#else
    constexpr bool by_slots = false;
#endif
    if (!by_slots && length % kLanes == 0 && length <= kMostTerms &&
        QuickRounding::fits(table.rounding)) {
      const QuickRounding rounding(*table.rounding);
      done.chosen = choose_quickly(first, second, count, chosen, choice, [&](std::int64_t g) {
        return better_lanes(table, rounding, first + g, second + g, w + g * length, length);
      });
    }
    for (std::int64_t g = done.chosen; g < count; ++g) {
      const bool better = is_second_better(table, first[g], second[g], w + g * length, length);
      choice[g] = better ? 1 : 0;
      chosen[g] = better ? second[g] : first[g];
    }
    span_table_codes(table, chosen + done.coded, w + done.coded * length, count - done.coded,
                     length, codes + done.coded * length);
    first += count, second += count, choice += count, groups -= count;
    w += count * length, codes += count * length;
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
