// Few activation rows of bf16 against blocks of ggml as they lie in memory.
//
//   for each row of w, for each block, 32 columns at a time: w = levels of the codes, as bf16
//     for each of M rows of x: dot = pairs of x[i] . pairs of w;  acc[i] += scale * dot
//   acc[i] -= minimum of each run * sum of x[i] over the run
//
// Levels are whole numbers that bf16 holds, so only x is rounded. Bound: memory bandwidth and the
// unpacking of codes together. Included inside an anonymous namespace of an ISA unit.

typedef std::uint16_t Halves __attribute__((vector_size(64)));

// The levels of all codes as bf16, again and again, so that bits above a code change nothing.
template <class Level>
struct HalfLevels {
  constexpr HalfLevels() {
    for (int i = 0; i < 64; ++i) {
      const auto bits = __builtin_bit_cast(std::uint32_t, Level::level(i));
      of[i] = static_cast<std::uint16_t>(bits >> 16);
    }
  }
  alignas(64) std::uint16_t of[64] = {};
};
template <class Level>
constexpr HalfLevels<Level> kHalfLevels;

template <class Block>
inline Pairs levels_at(const Block& block, int k) {
  const auto index = bits_as<Pairs>(block.template index<Halves>(k));
  const Pairs first = pload(kHalfLevels<Block>.of);
  if constexpr (Block::kBits <= 5) return _mm512_permutexvar_epi16(index, first);
  return _mm512_permutex2var_epi16(first, index, pload(kHalfLevels<Block>.of + 32));
}

// Scales of the pairs of 32 elements.
template <class Block>
inline Vec pair_scales(const Block& block, int k) {
  const Vec low = vset(block.scale(k));
  if constexpr (Block::kRun == 32) return low;
  return _mm512_mask_blend_ps(0xff00, low, vset(block.scale(k + 16)));
}

// What minimums take away from a row's sum: of super-blocks by lanes, of blocks that have one by
// itself, which needs no vector.
struct Taken {
  // sums: of x over the runs of the block.
  template <class Block>
  void add(const Block& block, const float* sums) {
    constexpr int kRuns = Block::kElements / Block::kRun;
    if constexpr (kRuns == 1) {
      one += block.minimum(0) * sums[0];
    } else {
      lanes = vfma(vload_n(block.minimums.of, kRuns), vload_n(sums, kRuns), lanes);
    }
  }
  Vec all() const { return _mm512_mask_add_ps(lanes, 1, lanes, vset(one)); }

  Vec lanes = vzero();
  float one = 0;
};

template <class Block>
struct Bf16Blocks {
  template <int M>
  static void row(const Bf16BlocksTask& t, std::int64_t row, std::int64_t i0) {
    constexpr int kChains = M == 1 ? 4 : 2;
    // As many blocks at once as give every chain its turn.
    constexpr int kTogether = Block::kElements == 32 ? kChains : 1;
    const unsigned char* data = t.w.data + row * t.w.row_bytes;
    const std::uint16_t* x = t.x + i0 * t.x_stride;
    const float* sums = t.sums + i0 * t.sums_stride;
    Vec acc[kChains][M];
    Taken taken[M];
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
      for (int s = 0; s < kChains; ++s) acc[s][i] = vzero();
    }
    const auto add_block = [&](int nth) {
      const Block block(data);
      fetch_ahead<Block>(data);
#pragma GCC unroll 8
      for (int k = 0; k < Block::kElements; k += 32) {
        const Pairs w = levels_at(block, k);
        const Vec scale = pair_scales(block, k);
        const int s = (nth + k / 32) % kChains;
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) {
          const Vec dot = pdot(vzero(), pload(x + i * t.x_stride + k), w);
          acc[s][i] = vfma(dot, scale, acc[s][i]);
        }
      }
      if constexpr (Block::kMinimum) {
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) taken[i].add(block, sums + i * t.sums_stride);
        sums += Block::kElements / Block::kRun;
      }
      data += Block::kBytes;
      x += Block::kElements;
    };
    for_blocks<kTogether>(t.w.cols / Block::kElements, add_block);
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) acc[0][i] = vsub(acc[0][i], taken[i].all());
    store_dots(acc, t, row, i0);
  }
};

// Blocks of bytes have no levels to look up, and read as much memory as floats can.
template <class Block>
constexpr bool kHasHalfLevels = Block::kBits <= 6;

void bf16_blocks(const Bf16BlocksTask& t) {
  with_block(t.w.block, [&]<class Block>() {
    if constexpr (kHasHalfLevels<Block>) rows_from<Bf16Blocks<Block>>(t);
  });
}

std::int64_t bf16_minimum_run(BlockStorage type) {
  std::int64_t run = 0;
  with_block(type, [&]<class Block>() {
    if (Block::kMinimum) run = Block::kRun;
  });
  return run;
}
