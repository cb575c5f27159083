// Encoding and decoding of runs of elements (formats/span_kernels.h) in the vectors of
// compiler_vectors.inl.h. The same bits as the scalar definition: nothing here is approximate, and
// no product is fused with a sum.

// Groups whose scales are chosen together.
constexpr std::int64_t kGroupsAtOnce = 64;

bool span_ranges(const float* w, std::int64_t groups, std::int64_t length, float* lo, float* hi) {
  const auto lesser = [](Floats a, Floats b) { return a < b ? a : b; };
  const auto greater = [](Floats a, Floats b) { return a > b ? a : b; };
  Whole bad{};
  for (std::int64_t g = 0; g < groups; ++g, w += length) {
    Floats low{}, high{};
    each_load(w, length, [&](Floats x) {
      low = lesser(x, low);
      high = greater(x, high);
      bad |= (bits_as<Whole>(x) & 0x7fffffff) >= 0x7f800000;
    });
    lo[g] = joined(low, lesser);
    hi[g] = joined(high, greater);
  }
  return !any_lane(bad);
}

bool span_magnitudes(const float* w, std::int64_t groups, std::int64_t length, float* absmax) {
  const auto greater = [](Whole a, Whole b) { return a > b ? a : b; };
  Whole most{};  // magnitudes are ordered as their bits are
  const auto largest_of = [&](const float* group) {
    Whole largest{};
    each_load(group, length,
              [&](Floats x) { largest = greater(bits_as<Whole>(x) & 0x7fffffff, largest); });
    return largest;
  };
  std::int64_t g = 0;
  for (; g + kLanes <= groups; g += kLanes) {
    Whole largest[kLanes];
    for (int i = 0; i < kLanes; ++i, w += length) largest[i] = largest_of(w);
    const Whole all = joined_each(largest, greater);
    most = greater(all, most);
    __builtin_memcpy(absmax + g, &all, sizeof(all));
  }
  for (; g < groups; ++g, w += length) {
    const std::int32_t bits = joined(largest_of(w), greater);
    absmax[g] = __builtin_bit_cast(float, bits);
    most = greater(lanes_of<Whole>(bits), most);
  }
  return joined(most, greater) < 0x7f800000;
}

// 1.5 * 2^23: a small number added to it is rounded to a whole one, which stands in its lowest
// bits.
constexpr float kWholeMagic = 12582912.0f;

void span_affine_codes(int bits, const float* scales, const int* zeros, const float* w,
                       std::int64_t groups, std::int64_t length, std::uint8_t* codes) {
  for (std::int64_t g = 0; g < groups; ++g, w += length, codes += length) {
    const Floats scale = lanes_of<Floats>(scales[g]);
    const Floats low = lanes_of<Floats>(static_cast<float>(-zeros[g]));
    const Floats high = lanes_of<Floats>(static_cast<float>((1 << bits) - 1 - zeros[g]));
    const int offset = zeros[g] - __builtin_bit_cast(std::int32_t, kWholeMagic);
    each_lane<Floats, Bytes>(w, length, codes, [&](Floats x) {
      Floats steps = x / scale;
      steps = steps < low ? low : steps;
      steps = steps > high ? high : steps;
      return __builtin_convertvector(bits_as<Whole>(steps + kWholeMagic) + offset, Bytes);
    });
  }
}

void span_affine_values(const float* scales, const int* zeros, const std::uint8_t* codes,
                        std::int64_t groups, std::int64_t length, float* out) {
  for (std::int64_t g = 0; g < groups; ++g, codes += length, out += length) {
    const Floats scale = lanes_of<Floats>(scales[g]);
    each_lane<Bytes, Floats>(codes, length, out, [&](Bytes c) {
      const Whole steps = widened(c) - zeros[g];
      return scale * __builtin_convertvector(steps, Floats);
    });
  }
}

// Codes in the place of ranks of a table that a vector holds, of values with the signs of x.
inline Whole mapped_ranks(const TableView& table, Whole codes, Whole rank, Floats x) {
  const Whole code = shuffled(codes, rank);
  const Whole negative_zero = (rank == table.zero_rank) & (bits_as<Whole>(x) < 0);
  return negative_zero != 0 ? Whole{} + table.negative_zero : code;
}

// The same one by one.
void codes_of_ranks(const TableView& table, const float* w, std::int64_t length,
                    std::uint8_t* codes) {
  if (table.rising) return;
  for (std::int64_t i = 0; i < length; ++i) {
    const int rank = codes[i];
    const bool negative = __builtin_signbit(w[i]) != 0;
    codes[i] = rank == table.zero_rank && negative ? table.negative_zero : table.codes[rank];
  }
}

// body(w, scale, codes) for each group; those without a positive scale get the code of zero.
template <class Body>
inline void for_scales(const float* scales, const float* w, std::int64_t groups,
                       std::int64_t length, std::uint8_t* codes, std::uint8_t zero,
                       const Body& body) {
  for (std::int64_t g = 0; g < groups; ++g, w += length, codes += length) {
    if (scales[g] > 0) {
      body(w, lanes_of<Floats>(scales[g]), codes);
    } else {
      for (std::int64_t i = 0; i < length; ++i) codes[i] = zero;
    }
  }
}

// Values of a small float type in float32: adding and taking off a power of two rounds to it.
struct QuickRounding {
  Whole top, normal;  // bits: magnitudes are ordered as their bits are
  Unsigned lift;

  static bool fits(const FloatRounding* r) {
    return r != nullptr && r->top < 1e15f && r->smallest_normal > 1e-15f;
  }
  // Where scales keep all that is computed with them normal.
  static Whole fits(Floats scales) { return (scales > 1e-15f) & (scales < 1e15f); }
  explicit QuickRounding(const FloatRounding& r)
      : top(bits_as<Whole>(lanes_of<Floats>(r.top))),
        normal(bits_as<Whole>(lanes_of<Floats>(r.smallest_normal))),
        lift(lanes_of<Unsigned>(static_cast<std::uint32_t>(23 - r.mantissa) << 23)) {}

  Floats cut(Floats size) const {
    const Whole bits = bits_as<Whole>(size);
    return bits_as<Floats>(bits < top ? bits : top);
  }
  // Bits of the power of two below a magnitude, or that of the least normal value.
  Unsigned exponent(Floats size) const {
    const Whole bits = bits_as<Whole>(size);
    return bits_as<Unsigned>(bits > normal ? bits : normal) & 0x7f800000u;
  }
  // What, added to it, leaves no bits behind the mantissa.
  Floats magic(Unsigned exponent) const { return bits_as<Floats>(exponent + lift); }

  Floats rounded(Floats size) const {
    const Floats q = cut(size);
    const Floats by = magic(exponent(q));
    return q + by - by;
  }
  // Magnitudes, divided by scale, rounded and multiplied by it, less what they were.
  Floats error(Floats size, Floats scale) const { return rounded(size / scale) * scale - size; }
};

// Codes of floats with a mantissa and a -0: a code's last bits are those of the magnitude and
// QuickRounding's power of two.
struct QuickCodes {
  QuickRounding rounding;
  int mantissa_shift, sign_shift;
  Unsigned sign, first;

  static bool fits(const FloatRounding* r) {
    return QuickRounding::fits(r) && r->mantissa > 0 && r->signed_zero;
  }
  explicit QuickCodes(const FloatRounding& r)
      : rounding(r),
        mantissa_shift(23 - r.mantissa),
        sign_shift(__builtin_clz(r.sign)),
        sign(lanes_of<Unsigned>(r.sign)),
        first(bits_as<Unsigned>(rounding.normal) >> mantissa_shift) {}

  Bytes operator()(Floats q) const {
    const Unsigned bits = bits_as<Unsigned>(q);
    const Floats size = rounding.cut(bits_as<Floats>(bits & 0x7fffffffu));
    const Unsigned exponent = rounding.exponent(size);
    const Unsigned sum = bits_as<Unsigned>(size + rounding.magic(exponent));
    const Unsigned code = sum + (exponent >> mantissa_shift) - first;
    return __builtin_convertvector(code | (bits >> sign_shift & sign), Bytes);
  }
};

// Codes of w / scale by the bits of float32.
void round_to_codes(const FloatRounding& r, const float* scales, const float* w,
                    std::int64_t groups, std::int64_t length, std::uint8_t* codes) {
  const Floats top = lanes_of<Floats>(r.top);
  const int shift = 23 - r.mantissa;
  const std::uint32_t half = (1u << (shift - 1)) - 1;
  const std::uint32_t magic = __builtin_bit_cast(std::uint32_t, r.magic);
  const Unsigned sign_of_zero = lanes_of<Unsigned>(r.signed_zero ? r.sign : 0);
  const auto code_of = [&](Floats q) {
    const Unsigned quotient = bits_as<Unsigned>(q);
    Floats size = bits_as<Floats>(quotient & 0x7fffffffu);
    size = size > top ? top : size;
    const Unsigned normal = bits_as<Unsigned>(size) - r.rebias;
    const Unsigned rounded = (normal + half + ((normal >> shift) & 1u)) >> shift;
    const Unsigned small = bits_as<Unsigned>(size + r.magic) - magic;
    const Unsigned code = size < r.smallest_normal ? small : rounded;
    const Unsigned sign = code == 0 ? sign_of_zero : lanes_of<Unsigned>(r.sign);
    return __builtin_convertvector(code | (bits_as<Whole>(quotient) < 0 ? sign : Unsigned{}),
                                   Bytes);
  };
  for_scales(scales, w, groups, length, codes, 0, [&](const float* from, Floats by, auto* to) {
    each_lane<Floats, Bytes>(from, length, to, [&](Floats x) { return code_of(x / by); });
  });
}

template <class Length>
void round_quickly(const FloatRounding& r, const float* scales, const float* w, std::int64_t groups,
                   Length length, std::uint8_t* codes) {
  const QuickCodes code_of(r);
  for_scales(scales, w, groups, length, codes, 0, [&](const float* from, Floats by, auto* to) {
    each_lane<Floats, Bytes>(from, length, to, [&](Floats x) { return code_of(x / by); });
  });
}

// Codes of w / scale; ranks_under(scale) finds the ranks of a vector of w among the values.
template <class RanksUnder>
inline void ranks_to_codes(const TableView& table, const float* scales, const float* w,
                           std::int64_t groups, std::int64_t length, std::uint8_t* codes,
                           const RanksUnder& ranks_under) {
  const bool held = table.leaves <= kLanes;  // all codes in one vector
  Whole mapping{};
  for (int i = 0; held && i < table.ranks; ++i) mapping[i] = table.codes[i];
  for_scales(scales, w, groups, length, codes, table.codes[table.zero_rank],
             [&](const float* from, Floats by, std::uint8_t* to) {
               const auto rank_of = ranks_under(by);
               if (held && !table.rising) {
                 return each_lane<Floats, Bytes>(from, length, to, [&](Floats x) {
                   const Whole rank = rank_of(x);
                   return __builtin_convertvector(mapped_ranks(table, mapping, rank, x), Bytes);
                 });
               }
               each_lane<Floats, Bytes>(from, length, to, [&](Floats x) {
                 return __builtin_convertvector(rank_of(x), Bytes);
               });
               codes_of_ranks(table, from, length, to);
             });
}

// By halves: a vector holds all bounds, and a shuffle is a search's next one.
void search_to_codes(const TableView& table, const float* scales, const float* w,
                     std::int64_t groups, std::int64_t length, std::uint8_t* codes) {
  const auto bounds = load_first<Floats>(table.bounds, 16);
  const auto rank_of = [&](Floats x) {
    Whole rank = (x > lanes_of<Floats>(table.bounds[7])) & 8;
    rank += (x > shuffled(bounds, rank + 3)) & 4;
    rank += (x > shuffled(bounds, rank + 1)) & 2;
    rank += (x > shuffled(bounds, rank)) & 1;
    return rank;
  };
  ranks_to_codes(table, scales, w, groups, length, codes,
                 [&](Floats by) { return [&rank_of, by](Floats x) { return rank_of(x / by); }; });
}

// How many bounds lie below gives the rank. (Searching by halves, with gathers or one by one, is
// slower even among 256 values.)
template <int Ranks>
void count_to_codes(const TableView& table, const float* scales, const float* w,
                    std::int64_t groups, std::int64_t length, std::uint8_t* codes) {
  const auto rank_of = [&](Floats x) {
    Whole rank{};
#pragma GCC unroll 15
    for (int i = 0; i < Ranks - 1; ++i) rank -= x > table.bounds[i];
    for (int i = Ranks - 1; i < table.leaves - 1; ++i) rank -= x > table.bounds[i];
    return rank;
  };
  ranks_to_codes(table, scales, w, groups, length, codes,
                 [&](Floats by) { return [&rank_of, by](Floats x) { return rank_of(x / by); }; });
}

#if defined(__AVX512F__)
void slots_to_codes(const TableView& table, const float* scales, const float* w,
                    std::int64_t groups, std::int64_t length, std::uint8_t* codes) {
  const SlotRanks ranks(table);
  ranks_to_codes(table, scales, w, groups, length, codes, [&](Floats by) {
    const Floats limits = ranks.limits(by), scale_slots = ranks.slots / by;
    return [&ranks, limits, scale_slots](Floats x) { return ranks.rank(x, scale_slots, limits); };
  });
}
#endif

// Codes that are whole numbers of steps.
void step_to_codes(const TableView& table, const float* scales, const float* w, std::int64_t groups,
                   std::int64_t length, std::uint8_t* codes) {
  const auto high = static_cast<float>((1 << (table.bits - 1)) - 1);
  const std::int32_t mask = (1 << table.bits) - 1;
  for_scales(scales, w, groups, length, codes, 0,
             [&](const float* from, Floats by, std::uint8_t* to) {
               each_lane<Floats, Bytes>(from, length, to, [&](Floats x) {
                 Floats steps = x / by * table.steps;
                 steps = steps < -1 - high ? lanes_of<Floats>(-1 - high) : steps;
                 steps = steps > high ? lanes_of<Floats>(high) : steps;
                 const Whole code = bits_as<Whole>(steps + kWholeMagic) & mask;
                 return __builtin_convertvector(code, Bytes);
               });
             });
}

void span_table_codes(const TableView& table, const float* scales, const float* w,
                      std::int64_t groups, std::int64_t length, std::uint8_t* codes) {
  if (QuickCodes::fits(table.rounding)) {
    length == kLanes ? round_quickly(*table.rounding, scales, w, groups, OneVector{}, codes)
                     : round_quickly(*table.rounding, scales, w, groups, length, codes);
  } else if (table.rounding != nullptr) {
    round_to_codes(*table.rounding, scales, w, groups, length, codes);
  } else if (table.steps > 0) {
    step_to_codes(table, scales, w, groups, length, codes);
#if defined(__AVX512F__)
  } else if (SlotRanks::fits(table, scales, groups)) {
    slots_to_codes(table, scales, w, groups, length, codes);
#endif
  } else if (table.leaves == 16 && kLanes == 16) {
    search_to_codes(table, scales, w, groups, length, codes);
  } else if (table.leaves == 16) {
    count_to_codes<16>(table, scales, w, groups, length, codes);
  } else if (table.leaves == 8) {
    count_to_codes<8>(table, scales, w, groups, length, codes);
  } else {
    count_to_codes<1>(table, scales, w, groups, length, codes);
  }
}

void look_up_values(const TableView& table, const float* scales, const std::uint8_t* codes,
                    std::int64_t groups, std::int64_t length, float* out) {
  for (std::int64_t g = 0; g < groups; ++g, codes += length, out += length) {
    for (std::int64_t i = 0; i < length; ++i) out[i] = table.values[codes[i]] * scales[g];
  }
}

// Values of floats by their bits. False when a code is none of a finite number (above the largest,
// or -0 where there is none); then the values mean nothing.
bool float_values(const FloatRounding& r, const float* scales, const std::uint8_t* codes,
                  std::int64_t groups, std::int64_t length, float* out) {
  const int shift = 23 - r.mantissa;
  const std::uint32_t largest = (__builtin_bit_cast(std::uint32_t, r.top) - r.rebias) >> shift;
  const std::uint32_t exponents = ((r.sign - 1) >> r.mantissa) << r.mantissa;
  const std::uint32_t no_zero = r.signed_zero ? 0x100u : r.sign;  // no code
  const int to_sign = __builtin_clz(r.sign);
  Whole special{};
  for (std::int64_t g = 0; g < groups; ++g, codes += length, out += length) {
    const float scale = scales[g];
    each_lane<Bytes, Floats>(codes, length, out, [&](Bytes c) {
      const Unsigned code = bits_as<Unsigned>(widened(c));
      const Unsigned size = code & (r.sign - 1);
      const Unsigned bits = (size << shift) + r.rebias;
      const Floats subnormal = bits_as<Floats>(bits + (1u << 23)) - r.smallest_normal;
      const Floats magnitude = (size & exponents) == 0 ? subnormal : bits_as<Floats>(bits);
      special |= (size > largest) | (code == no_zero);
      return bits_as<Floats>(bits_as<Unsigned>(magnitude) | (code & r.sign) << to_sign) * scale;
    });
  }
  return !any_lane(special);
}

void span_table_values(const TableView& table, const float* scales, const std::uint8_t* codes,
                       std::int64_t groups, std::int64_t length, float* out) {
  if constexpr (kLanes == 16) {
    if (table.bits <= 4) {
      const Floats values = load_first<Floats>(table.values, 1 << table.bits);
      for (std::int64_t g = 0; g < groups; ++g, codes += length, out += length) {
        each_lane<Bytes, Floats>(codes, length, out,
                                 [&](Bytes c) { return shuffled(values, widened(c)) * scales[g]; });
      }
      return;
    }
  }
  const bool done = table.rounding != nullptr &&
                    float_values(*table.rounding, scales, codes, groups, length, out);
  if (!done) look_up_values(table, scales, codes, groups, length, out);
}
