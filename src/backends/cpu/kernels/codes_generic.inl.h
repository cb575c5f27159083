// Affine weights of one group: scale * (code - zero), 4 codes that start on any bit.
// Included inside an anonymous namespace of an ISA unit; see codes_avx512.inl.h.

template <int Bits>
struct Codes {
  Codes() = default;
  Codes(float scale, int zero) : scale_(vset(scale)), zero_(zero) {}

  Vec load(const unsigned char* row, std::int64_t k) const { return load_n(row, k, kLanes); }
  Vec load_n(const unsigned char* row, std::int64_t k, std::int64_t n) const {
    Vec v = vzero();
    for (std::int64_t i = 0; i < n; ++i) v[i] = static_cast<float>(code(row, k + i) - zero_);
    return scale_ * v;
  }

 private:
  static int code(const unsigned char* row, std::int64_t k) {
    const std::int64_t at = k * Bits;
    const int shift = static_cast<int>(at % 8);
    int window = row[at / 8];
    if (shift + Bits > 8) window |= row[at / 8 + 1] << 8;
    return (window >> shift) & ((1 << Bits) - 1);
  }

  Vec scale_;
  int zero_ = 0;
};
