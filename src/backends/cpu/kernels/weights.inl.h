// Sources of weights: what a kernel sees of a stored row, whatever the format. A source is made for
// one group of columns; load() gives kLanes weights, load_n() the last n < kLanes of them.
// Included inside an anonymous namespace of an ISA unit.

template <Storage Type>
struct FloatSource {
  FloatSource() = default;
  FloatSource(const WeightView&, std::int64_t, std::int64_t) {}
  static constexpr std::int64_t byte_of(std::int64_t k) { return k * float_bytes<Type>(); }
  Vec load(const unsigned char* row, std::int64_t k) const {
    return load_floats<Type>(row + k * float_bytes<Type>());
  }
  Vec load_n(const unsigned char* row, std::int64_t k, std::int64_t n) const {
    return load_floats_n<Type>(row + k * float_bytes<Type>(), n);
  }
};

template <int Bits>
struct CodeSource : Codes<Bits> {
  static constexpr std::int64_t byte_of(std::int64_t k) { return k * Bits / 8; }
  CodeSource() = default;
  CodeSource(const WeightView& w, std::int64_t row, std::int64_t group)
      : Codes<Bits>(
            load_scalar(w.scales, w.scale_type, row * w.params_per_row + group),
            w.zeros == nullptr ? 1 << (Bits - 1) : w.zeros[row * w.params_per_row + group]) {}
};

template <class Source>
void decode_row_from(const WeightView& w, std::int64_t row, std::int64_t begin, std::int64_t count,
                     float* out) {
  const unsigned char* data = w.data + row * w.row_bytes;
  const std::int64_t end = begin + count;
  std::int64_t k = begin;
  while (k < end) {
    const std::int64_t group = k / w.group;
    const std::int64_t group_end = (group + 1) * w.group < end ? (group + 1) * w.group : end;
    const Source source(w, row, group);
    for (; k + kLanes <= group_end; k += kLanes) vstore(out + (k - begin), source.load(data, k));
    if (k < group_end) {
      vstore_n(out + (k - begin), source.load_n(data, k, group_end - k), group_end - k);
      k = group_end;
    }
  }
}

void decode_row(const WeightView& w, std::int64_t row, std::int64_t begin, std::int64_t count,
                float* out) {
  switch (w.storage) {
    case Storage::kF32:
      return decode_row_from<FloatSource<Storage::kF32>>(w, row, begin, count, out);
    case Storage::kF16:
      return decode_row_from<FloatSource<Storage::kF16>>(w, row, begin, count, out);
    case Storage::kBF16:
      return decode_row_from<FloatSource<Storage::kBF16>>(w, row, begin, count, out);
    case Storage::kBlock:
      return with_block(w.block,
                        [&]<class Block>() { decode_blocks<Block>(w, row, begin, count, out); });
    case Storage::kInt:
      break;
  }
  switch (w.bits) {
    case 2:
      return decode_row_from<CodeSource<2>>(w, row, begin, count, out);
    case 3:
      return decode_row_from<CodeSource<3>>(w, row, begin, count, out);
    case 4:
      return decode_row_from<CodeSource<4>>(w, row, begin, count, out);
    case 5:
      return decode_row_from<CodeSource<5>>(w, row, begin, count, out);
    case 6:
      return decode_row_from<CodeSource<6>>(w, row, begin, count, out);
    case 7:
      return decode_row_from<CodeSource<7>>(w, row, begin, count, out);
    default:
      return decode_row_from<CodeSource<8>>(w, row, begin, count, out);
  }
}
