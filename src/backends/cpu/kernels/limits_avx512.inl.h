// Ranks among the values of a table that has a map of slots (TableView::below), without divisions.

struct SlotRanks {
  Floats bounds, gaps;  // gaps: to the middle between a bound and the next float above
  Whole below[2];
  float slots;

  // Whether limits are exact: nothing that they are made of underflows.
  static bool fits(const TableView& table, const float* scales, std::int64_t groups) {
    if (table.below == nullptr) return false;
    bool all = true;
    for (std::int64_t g = 0; g < groups; ++g) all &= scales[g] > 1e-15f && scales[g] < 1e15f;
    return all;
  }
  explicit SlotRanks(const TableView& table)
      : bounds(load_as<Floats>(table.bounds)),
        below{widened(load_as<Bytes>(table.below)), widened(load_as<Bytes>(table.below + kLanes))},
        slots(table.slots) {
    const Whole bits = bits_as<Whole>(bounds);
    const Floats next = bits_as<Floats>(bits + (bits < 0 ? Whole{} - 1 : Whole{} + 1));
    gaps = (next - bounds) * 0.5f;
  }
  // The largest floats whose quotients by scale are rounded to at most the bounds, which lie in the
  // middle between a bound and the next float: no quotient lies there, for it takes a bit too many.
  Floats limits(Floats scale) const {
    const Floats product = bounds * scale;
    const Floats rest = _mm512_fmsub_ps(bounds, scale, product);
    constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    return _mm512_add_round_ps(product, _mm512_fmadd_round_ps(gaps, scale, rest, kDown), kDown);
  }
  // scale_slots: slots / scale
  Whole rank(Floats x, Floats scale_slots, Floats limits) const {
    const Whole first = bits_as<Whole>(Floats{} + 0x1p23f), last = first + 31;
    Whole slot = bits_as<Whole>(vfma(x, scale_slots, vset(0x1p23f + 16)));
    slot = slot > first ? slot : first;
    slot = slot < last ? slot : last;
    const Whole rank = shuffled(below[0], below[1], slot);
    return rank - (x > shuffled(limits, rank));
  }
};
