// Magnitudes of a small float type by a table of 32 slots, each half a smallest value wide: bounds
// between values lie at edges of slots, so a slot has one value, and two registers hold them all.
// A product with a reciprocal finds the slot. It may be the next one where a magnitude lies within
// rounding of a bound: both neighbours leave almost the same error there, but the code is in doubt.

struct Slots {
  static constexpr std::uint32_t kSign = 8;

  float width;                   // w / scale of a slot
  Floats low, upper;             // values of slots 0 ... 15 and 16 ... 31
  Whole low_codes, upper_codes;  // and their codes

  // Whether slots reach from 0 to beyond the largest value, and not far beyond.
  static bool fits(const FloatRounding* r) {
    if (!QuickCodes::fits(r) || r->sign != kSign) return false;
    const float slots = r->top / width_of(*r);
    return slots >= 24 && slots < 32;
  }
  static float width_of(const FloatRounding& r) {
    return r.smallest_normal / static_cast<float>(2 << r.mantissa);
  }
  explicit Slots(const FloatRounding& r) : width(width_of(r)) {
    const QuickCodes code_of(r);
    const Floats middle = (viota() + 0.5f) * width;
    const Floats upper_middle = (viota() + 16.5f) * width;
    low = code_of.rounding.rounded(middle);
    upper = code_of.rounding.rounded(upper_middle);
    low_codes = widened(code_of(middle));
    upper_codes = widened(code_of(upper_middle));
  }
  // What magnitudes are multiplied by under kLanes scales.
  Floats inverse(const float* scales) const { return 1 / (width * load_as<Floats>(scales)); }
  // 2^23 and, in the lowest bits, the number of the slot.
  static Floats slot(Floats size, Floats inverse) {
    return _mm512_fmadd_round_ps(size, inverse, vset(0x1p23f),
                                 _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
  }
  // Whether there are so many of them.
  static bool are_slots(__m512i bits_of_all) {
    return _mm512_test_epi32_mask(bits_of_all, _mm512_set1_epi32(~0x4b00001f)) == 0;
  }
  static __m512i either(__m512i bits, Floats a, Floats b) {
    return _mm512_ternarylogic_epi32(bits, _mm512_castps_si512(a), _mm512_castps_si512(b), 0xfe);
  }
  // Values times scale, less the magnitudes.
  Floats error(Floats slot, Floats size, Floats scale) const {
    return _mm512_fmsub_ps(shuffled(low, upper, bits_as<Whole>(slot)), scale, size);
  }
  Bytes code(Floats slot, Floats x) const {
    const Whole size = shuffled(low_codes, upper_codes, bits_as<Whole>(slot));
    const Unsigned sign = bits_as<Unsigned>(x) >> 28 & kSign;
    return __builtin_convertvector(bits_as<Unsigned>(size) | sign, Bytes);
  }
};

// Groups of a vector under two scales each.
struct SlotChoice {
  const Slots& slots;
  const float* first;
  const float* second;
  const float* w;
  std::int64_t groups;  // a multiple of kLanes, up to kGroupsAtOnce
  float inverses[2][kGroupsAtOnce];

  SlotChoice(const Slots& by, const float* a, const float* b, const float* from, std::int64_t count)
      : slots(by), first(a), second(b), w(from), groups(count) {
    for (std::int64_t g = 0; g < groups; g += kLanes) {
      vstore(inverses[0] + g, slots.inverse(first + g));
      vstore(inverses[1] + g, slots.inverse(second + g));
    }
  }
  // The squared error under the second scale less that under the first of kLanes groups from g on,
  // within 2^-8 squared widths of slots under the larger one. False where values leave the slots.
  bool differences(std::int64_t g, Floats* difference) const {
    constexpr std::int64_t kAhead = 1024;  // floats
    Floats parts[kLanes];
    __m512i all = _mm512_setzero_si512();
#pragma GCC unroll 2
    for (int i = 0; i < kLanes; ++i, ++g) {
      const Floats size = vabs(vload(w + g * kLanes));
      __builtin_prefetch(w + g * kLanes + kAhead);
      const Floats slot_a = Slots::slot(size, vset(inverses[0][g]));
      const Floats slot_b = Slots::slot(size, vset(inverses[1][g]));
      const Floats error_a = slots.error(slot_a, size, vset(first[g]));
      const Floats error_b = slots.error(slot_b, size, vset(second[g]));
      all = Slots::either(all, slot_a, slot_b);
      parts[i] = (error_b - error_a) * (error_b + error_a);
    }
    *difference = joined_each(parts, [](Floats x, Floats y) { return x + y; });
    return Slots::are_slots(all);
  }
};

// Codes of `groups` groups of a vector, a multiple of kLanes up to kGroupsAtOnce. Where a slightly
// larger reciprocal leads to other slots, the quotients decide.
void slot_codes(const TableView& table, const Slots& slots, const float* scales, const float* w,
                std::int64_t groups, std::uint8_t* codes) {
  float low[kGroupsAtOnce], high[kGroupsAtOnce];
  for (std::int64_t g = 0; g < groups; g += kLanes) {
    const Floats inverse = slots.inverse(scales + g);
    vstore(low + g, inverse * (1 - 0x1p-22f));
    vstore(high + g, inverse * (1 + 0x1p-22f));
  }
  constexpr int kPart = kLanes * kLanes;
  for (std::int64_t g = 0; g < groups; g += kLanes, w += kPart, codes += kPart) {
    __m512i all = _mm512_setzero_si512(), doubt = all;
#pragma GCC unroll 2
    for (int i = 0; i < kLanes; ++i) {
      const Floats x = load_as<Floats>(w + i * kLanes), size = vabs(x);
      const Floats slot = Slots::slot(size, vset(low[g + i]));
      const Floats other = Slots::slot(size, vset(high[g + i]));
      doubt = _mm512_ternarylogic_epi32(doubt, _mm512_castps_si512(slot),
                                        _mm512_castps_si512(other), 0xf6);
      all = Slots::either(all, slot, other);
      const Bytes code = slots.code(slot, x);
      __builtin_memcpy(codes + i * kLanes, &code, sizeof(code));
    }
    if (Slots::are_slots(all) && !any_lane(bits_as<Whole>(doubt))) continue;
    span_table_codes(table, scales + g, w, kLanes, kLanes, codes);
  }
}
