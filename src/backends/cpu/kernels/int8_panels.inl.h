// Panels of integer weights as vectors of bytes: a panel is kParts vectors wide. Included inside an
// anonymous namespace of an ISA unit.

constexpr int kVecBytes = 4 * kLanes;

// Scale and zero point of one vector of rows in one group.
struct GroupNumbers {
  GroupNumbers() = default;
  GroupNumbers(const PanelView& w, std::int64_t panel, int part, std::int64_t group) {
    const std::int64_t at = (panel * w.groups + group) * kPanelRows + part * kLanes;
    const int size = w.scale_type == Storage::kF32 ? 4 : 2;
    const unsigned char* p = w.scales + at * size;
    if (w.scale_type == Storage::kF32) {
      scale = load_floats<Storage::kF32>(p);
    } else if (w.scale_type == Storage::kF16) {
      scale = load_floats<Storage::kF16>(p);
    } else {
      scale = load_floats<Storage::kBF16>(p);
    }
    if (w.zeros != nullptr) zeros = w.zeros + at;
  }

  Vec scale;
  const signed char* zeros = nullptr;
};

// The columns of a unit.
template <bool kNibbles>
constexpr std::int64_t unit_columns() {
  return kNibbles ? 8 : 4;
}

struct Halves {
  Ints low, high;
};
inline Halves nibbles(Ints packed, Ints zero) {
  const Ints mask = iset8(15);
  return {isub8(iand(packed, mask), zero), isub8(iand(ishift4(packed), mask), zero)};
}

// Where vector v of the panel begins among the codes.
inline const unsigned char* vector_of_panel(const Int8Task& t, int v) {
  return t.w.codes + t.panel * t.w.panel_bytes + v * kVecBytes;
}
