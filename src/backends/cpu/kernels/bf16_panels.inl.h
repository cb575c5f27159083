// Rows of bf16 weights to panels of pairs: a transposition of 32-bit elements. Included inside an
// anonymous namespace of an ISA unit.

// `count` <= kBf16Step columns of 16 rows, of which `rows` exist.
inline void pack_pairs(const unsigned char* w, std::int64_t row_bytes, std::int64_t rows,
                       std::int64_t count, std::uint32_t* out) {
  alignas(64) float square[kPairLanes * kPairLanes];  // pairs, moved and never computed with
  for (std::int64_t r = 0; r < kPairLanes; ++r) {
    Pairs pairs = pzero();
    const unsigned char* row = w + r * row_bytes;
    if (r < rows) pairs = count < kBf16Step ? pload_n(row, count) : pload(row);
    pstore(square + r * kPairLanes, pairs);
  }
  transpose(square, kPairLanes, reinterpret_cast<float*>(out), kBf16PanelRows);
}

void bf16_pack(const unsigned char* w, std::int64_t row_bytes, std::int64_t rows,
               std::int64_t count, std::uint32_t* panel) {
  for (std::int64_t k = 0; k < count; k += kBf16Step) {
    for (std::int64_t r = 0; r < kBf16PanelRows; r += kPairLanes) {
      pack_pairs(w + r * row_bytes + 2 * k, row_bytes, rows - r,
                 count - k < kBf16Step ? count - k : kBf16Step, panel + k / 2 * kBf16PanelRows + r);
    }
  }
}
