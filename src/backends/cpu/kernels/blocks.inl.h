// Weights in blocks of ggml, read in place: rows of numbers, and dot products for few activation
// rows.
//
//   for each block: its scales; for k in the block, a vector at a time:
//     w = scale * level(code k) - minimum;  acc[s][i] += w * x[i][k]
//
// Where a vector holds all values of a run (16 lanes, up to 5 bits) they are made once, and codes
// index them: w has the bits of the definition, which rounds after every step, either way.
// Included inside an anonymous namespace of an ISA unit.

inline Vec as_vec(Floats v) { return __builtin_bit_cast(Vec, v); }

// The levels of all codes, again and again, so that bits above a code change nothing.
template <class Level>
struct LevelTable {
  constexpr LevelTable() {
    for (int i = 0; i < 32; ++i) of[i] = Level::level(i);
  }
  alignas(64) float of[32] = {};
};
template <class Level>
constexpr LevelTable<Level> kLevelTable;

// What the codes of one run stand for.
template <class Block>
class RunValues {
 public:
  RunValues(float scale, float minimum) : scale_(scale), minimum_(minimum) {
    if constexpr (kHeld) first_ = scaled(load_as<Floats>(kLevelTable<Block>.of));
    if constexpr (kHeld && Block::kBits == 5) {
      second_ = scaled(load_as<Floats>(kLevelTable<Block>.of + kLanes));
    }
  }

  Floats at(Unsigned index) const {
    const Whole code = bits_as<Whole>(index);
    if constexpr (kHeld && Block::kBits == 5) return shuffled(first_, second_, code);
    if constexpr (kHeld) return shuffled(first_, code);
    return scaled(level(code));
  }

 private:
  static constexpr bool kHeld = kLanes == 16 && Block::kBits <= 5;

  static Floats level(Whole code) {
    if constexpr (Block::kBits == 8) return __builtin_convertvector(code, Floats);
    if constexpr (Block::kBits < 8 && Block::kWhole) {
      const Whole whole = (code & ((1 << Block::kBits) - 1)) - Block::kOffset;
      return __builtin_convertvector(whole, Floats);
    } else if constexpr (kLanes == 8) {
      const Floats low = shuffled(load_as<Floats>(kLevelTable<Block>.of), code);
      const Floats high = shuffled(load_as<Floats>(kLevelTable<Block>.of + kLanes), code);
      return (code & 8) != 0 ? high : low;
    } else {
      Floats levels;
      for (int i = 0; i < kLanes; ++i) levels[i] = Block::level(code[i]);
      return levels;
    }
  }
  Floats scaled(Floats level) const {
    Floats value = level * scale_;
    if constexpr (Block::kMinimum) value -= minimum_;
    return value;
  }

  float scale_, minimum_;
  Floats first_, second_;
};

// Work on vectors is written out for levels of wide ones; others would only have much code.
constexpr int kBlockUnroll = kLanes >= 8 ? 256 / kLanes : 1;

// body(k, w) for vectors of a block: elements [k, k + kLanes) are w.
template <class Block, class Body>
inline void for_vectors(const unsigned char* data, const Body& body) {
  const Block block(data);
#pragma GCC unroll kBlockUnroll
  for (int run = 0; run < Block::kElements; run += Block::kRun) {
    const RunValues<Block> values(block.scale(run), block.minimum(run));
#pragma GCC unroll kBlockUnroll
    for (int k = run; k < run + Block::kRun; k += kLanes)
      body(k, values.at(block.template index<Unsigned>(k)));
  }
}

// Elements [begin, begin + count) of a row; begin is a multiple of kLanes.
template <class Block>
void decode_blocks(const WeightView& w, std::int64_t row, std::int64_t begin, std::int64_t count,
                   float* out) {
  const unsigned char* data = w.data + row * w.row_bytes;
  const std::int64_t end = begin + count;
  for (std::int64_t at = begin / Block::kElements * Block::kElements; at < end;
       at += Block::kElements) {
    for_vectors<Block>(data + at / Block::kElements * Block::kBytes, [&](int k, Floats values) {
      const std::int64_t to = at + k - begin;
      if (to >= 0 && to + kLanes <= count) {
        vstore(out + to, as_vec(values));
      } else if (to >= 0 && to < count) {
        vstore_n(out + to, as_vec(values), count - to);
      }
    });
  }
}

// Rows of a weight that stands in blocks.
template <class Block>
struct InBlocks {
  // Row `row` of w times rows [i0, i0 + M) of x, in kChains chains of additions each.
  template <int M>
  static void row(const GemvTask& t, std::int64_t row, std::int64_t i0) {
    constexpr int kChains = M == 1 ? 4 : 2;
    // As many blocks at once as give every chain its turn.
    constexpr int kTogether =
        Block::kElements < kChains * kLanes ? kChains * kLanes / Block::kElements : 1;
    const unsigned char* data = t.w.data + row * t.w.row_bytes;
    const float* x = t.x + i0 * t.x_stride;
    Vec acc[kChains][M];
#pragma GCC unroll 4
    for (int s = 0; s < kChains; ++s) {
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) acc[s][i] = vzero();
    }
    const auto add_block = [&](int nth) {
      fetch_ahead<Block>(data);
      for_vectors<Block>(data, [&](int k, Floats values) {
        const Vec w = as_vec(values);
        const int s = (nth * Block::kElements + k) / kLanes % kChains;
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) acc[s][i] = vfma(w, vload(x + i * t.x_stride + k), acc[s][i]);
      });
      data += Block::kBytes;
      x += Block::kElements;
    };
    for_blocks<kTogether>(t.w.cols / Block::kElements, add_block);
    store_dots(acc, t, row, i0);
  }
};
