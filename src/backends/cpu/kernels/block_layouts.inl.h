// Where blocks of ggml keep their codes and scales: one struct a layout, made for one block.
//
//   element k = scale(k) * level(code k) - minimum(k)
//
// index<Lanes>(k) holds the codes of the elements from k on, as many as lanes (a multiple of them,
// at most 32), in the low kBits bits of its lanes; what is above means nothing. scale and minimum
// hold for runs of kRun elements. The definition is
// formats/block_decode.cc. Included inside an anonymous namespace of an ISA unit.

inline std::uint32_t word_at(const unsigned char* p) {
  std::uint32_t word;
  __builtin_memcpy(&word, p, sizeof(word));
  return word;
}
inline std::uint64_t words_at(std::uint32_t low, std::uint32_t high) {
  return low | static_cast<std::uint64_t>(high) << 32;
}
inline float half_at(const unsigned char* p) { return load_scalar(p, Storage::kF16, 0); }

template <int Bytes>
struct LaneOfBytes {
  using type = std::uint32_t;
};
template <>
struct LaneOfBytes<2> {
  using type = std::uint16_t;
};
template <class Lanes>
constexpr int kLaneBytes = static_cast<int>(sizeof(Lanes{}[0]));
template <class Lanes>
constexpr int kLanesOf = static_cast<int>(sizeof(Lanes)) / kLaneBytes<Lanes>;

template <class Lanes>
inline Lanes in_all_lanes(unsigned value) {
  return Lanes{} + static_cast<typename LaneOfBytes<kLaneBytes<Lanes>>::type>(value);
}

// As many bytes as lanes, in lanes.
template <class Lanes>
inline Lanes bytes_at(const unsigned char* p) {
#if defined(__AVX512BW__)
  if constexpr (kLanesOf<Lanes> == 32) {
    const auto* const bytes = reinterpret_cast<const __m256i*>(p);
    return bits_as<Lanes>(_mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes)));
  }
#endif
  return bits_as<Lanes>(widened(load_as<Bytes>(p)));
}

// Bit `from` of each lane, moved to bit `to`, among others.
template <class Lanes>
inline Lanes moved(Lanes v, int from, int to) {
  return from < to ? v << (to - from) : v >> (from - to);
}
// The low `bits` bits of one, then those of the other from there on.
template <class Lanes>
inline Lanes above(int bits, Lanes low, Lanes high) {
  const Lanes mask = in_all_lanes<Lanes>((1u << bits) - 1);
  return (low & mask) | (high & ~mask);
}

// Bits [k, k + lanes) of a word, as bit 4 of each lane, perhaps among others.
template <class Lanes>
inline Lanes fifth_bits(std::uint32_t word, int k) {
#if defined(__AVX512BW__)
  if constexpr (kLanesOf<Lanes> == 32) return bits_as<Lanes>(_mm512_maskz_set1_epi16(word, 16));
  const auto bits = static_cast<__mmask16>(word >> k & 0xffff);
  return bits_as<Lanes>(_mm512_maskz_set1_epi32(bits, 16));
#else
  Lanes lane{};
  for (int i = 0; i < kLanesOf<Lanes>; ++i) lane[i] = static_cast<std::uint32_t>(i);
  return (in_all_lanes<Lanes>(word >> k) >> lane) << 4;
#endif
}

// Codes of elements [k, k + lanes) of 32, halves of 16 bytes: the first 16 are the low ones.
template <class Lanes>
inline Lanes halves_at(const unsigned char* codes, int k) {
#if defined(__AVX512BW__)
  if constexpr (kLanesOf<Lanes> == 32) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    const __m512i both = _mm512_cvtepu8_epi16(_mm256_broadcastsi128_si256(bytes));
    return bits_as<Lanes>(_mm512_mask_srli_epi16(both, 0xffff0000u, both, 4));
  }
#endif
  return bytes_at<Lanes>(codes + k % 16) >> (k < 16 ? 0 : 4);
}

typedef std::uint64_t LongPair __attribute__((vector_size(16)));

// 8 whole numbers in bytes, less `offset`, times d, to `to`, which has room for a vector.
inline void scaled_bytes(std::uint64_t bytes, int offset, float d, float* to) {
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += kLanes) {
    // (Through memory, a load as wide as a vector would wait for the store to reach the cache.)
    const LongPair pair = {bytes >> 8 * i, 0};
    Bytes some;
    __builtin_memcpy(&some, &pair, sizeof(some));
    vstore(to + i,
           __builtin_bit_cast(Vec, d * __builtin_convertvector(widened(some) - offset, Floats)));
  }
}

// The numbers of 16 runs and of a vector behind them. They are read one by one from memory: a load
// that fills a vector is cheaper than a lane of a register in all others.
struct RunNumbers {
  void settle() { asm("" : "+m"(of)); }

  alignas(64) float of[16 + kLanes];
};

constexpr float kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};

// Codes that are whole numbers.
template <int Bits, int Offset, bool kHasMinimum>
struct WholeLevels {
  static constexpr int kBits = Bits;
  static constexpr bool kMinimum = kHasMinimum;
  static constexpr bool kWhole = true;
  static constexpr int kOffset = Offset;
  static constexpr float level(int code) {
    return static_cast<float>((code & ((1 << Bits) - 1)) - Offset);
  }
};
struct Iq4Level {
  static constexpr int kBits = 4;
  static constexpr bool kMinimum = false;
  static constexpr bool kWhole = false;
  static constexpr float level(int code) { return kIq4Levels[code & 15]; }
};

// d, m if there are minimums, fifth bits if there are, then nibbles: element k and k + 16 in a
// byte.
template <class Level>
struct BlockOf32 : Level {
  static constexpr int kElements = 32, kRun = 32;
  static constexpr int kFifth = Level::kMinimum ? 4 : 2;
  static constexpr int kCodes = kFifth + (Level::kBits == 5 ? 4 : 0);
  static constexpr int kBytes = kCodes + 16;

  explicit BlockOf32(const unsigned char* b) : block(b), d(half_at(b)) {
    if constexpr (Level::kMinimum) m = half_at(b + 2);
  }
  float scale(int) const { return d; }
  float minimum(int) const { return -m; }
  template <class Lanes>
  Lanes index(int k) const {
    const Lanes nibbles = halves_at<Lanes>(block + kCodes, k);
    if constexpr (Level::kBits == 4) return nibbles;
    return above(4, nibbles, fifth_bits<Lanes>(word_at(block + kFifth), k));
  }

  const unsigned char* block;
  float d, m = 0;
};

// d, signed bytes
struct BlockOfBytes : WholeLevels<8, 0, false> {
  static constexpr int kElements = 32, kRun = 32, kBytes = 34;

  explicit BlockOfBytes(const unsigned char* b) : block(b), d(half_at(b)) {}
  float scale(int) const { return d; }
  float minimum(int) const { return 0; }
  template <class Lanes>
  Lanes index(int k) const {
    return bits_as<Lanes>(widened_signed(load_as<Bytes>(block + 2 + k)));
  }

  const unsigned char* block;
  float d;
};

// The super-blocks: scales of their runs are numbers of a few bits times d.
struct SuperBlock {
  static constexpr int kElements = 256;
};

// Scales (low half) and minimums of 16 elements in a byte, codes of 2 bits, d, dmin.
struct BlockQ2K : SuperBlock, WholeLevels<2, 0, true> {
  static constexpr int kRun = 16, kBytes = 84;

  explicit BlockQ2K(const unsigned char* b) : codes(b + 16) {
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    constexpr std::uint64_t kLow = 0x0f0f0f0f0f0f0f0fu;
    for (int i = 0; i < 16; i += 8) {
      const std::uint64_t both = words_at(word_at(b + i), word_at(b + i + 4));
      scaled_bytes(both & kLow, 0, d, scales.of + i);
      scaled_bytes(both >> 4 & kLow, 0, dmin, minimums.of + i);
    }
    scales.settle();
    minimums.settle();
  }
  float scale(int k) const { return scales.of[k / 16]; }
  float minimum(int k) const { return minimums.of[k / 16]; }
  template <class Lanes>
  Lanes index(int k) const {
    return bytes_at<Lanes>(codes + k / 128 * 32 + k % 32) >> k / 32 % 4 * 2;
  }

  const unsigned char* codes;
  RunNumbers scales, minimums;
};

// Third bits (clear: less 4), codes of 2 bits, scales of 16 elements of 6 bits, d.
struct BlockQ3K : SuperBlock, WholeLevels<3, 4, false> {
  static constexpr int kRun = 16, kBytes = 110;

  explicit BlockQ3K(const unsigned char* b) : block(b) {
    const float d = half_at(b + 108);
    const std::uint64_t low = words_at(word_at(b + 96), word_at(b + 100));
    const std::uint32_t high = word_at(b + 104);
    constexpr std::uint64_t kLow = 0x0f0f0f0f0f0f0f0fu, kHigh = 0x0303030303030303u;
    for (int i = 0; i < 2; ++i) {
      const std::uint64_t top = words_at(high >> 4 * i, high >> (4 * i + 2)) & kHigh;
      scaled_bytes((low >> 4 * i & kLow) | top << 4, 32, d, scales.of + 8 * i);
    }
    scales.settle();
  }
  float scale(int k) const { return scales.of[k / 16]; }
  float minimum(int) const { return 0; }
  template <class Lanes>
  Lanes index(int k) const {
    const Lanes low = bytes_at<Lanes>(block + 32 + k / 128 * 32 + k % 32) >> k / 32 % 4 * 2;
    return above(2, low, moved(bytes_at<Lanes>(block + k % 32), k / 32, 2));
  }

  const unsigned char* block;
  RunNumbers scales;
};

// d, dmin, scales and minimums of 32 elements of 6 bits, fifth bits if there are, nibbles.
template <int Bits>
struct BlockQ45K : SuperBlock, WholeLevels<Bits, 0, true> {
  static constexpr int kRun = 32, kCodes = Bits == 5 ? 48 : 16, kBytes = kCodes + 128;

  explicit BlockQ45K(const unsigned char* b) : block(b) {
    constexpr std::uint32_t kSix = 0x3f3f3f3f, kFour = 0x0f0f0f0f, kTwo = 0x03030303;
    const std::uint32_t first = word_at(b + 4), second = word_at(b + 8), third = word_at(b + 12);
    scaled_bytes(words_at(first & kSix, (third & kFour) | (first >> 6 & kTwo) << 4), 0, half_at(b),
                 scales.of);
    scaled_bytes(words_at(second & kSix, (third >> 4 & kFour) | (second >> 6 & kTwo) << 4), 0,
                 half_at(b + 2), minimums.of);
    scales.settle();
    minimums.settle();
  }
  float scale(int k) const { return scales.of[k / 32]; }
  float minimum(int k) const { return minimums.of[k / 32]; }
  template <class Lanes>
  Lanes index(int k) const {
    const Lanes nibbles = bytes_at<Lanes>(block + kCodes + k / 64 * 32 + k % 32) >> k / 32 % 2 * 4;
    if constexpr (Bits == 4) return nibbles;
    return above(4, nibbles, moved(bytes_at<Lanes>(block + 16 + k % 32), k / 32, 4));
  }

  const unsigned char* block;
  RunNumbers scales, minimums;
};

// Low four bits, high two bits, scales of 16 elements as signed bytes, d.
struct BlockQ6K : SuperBlock, WholeLevels<6, 32, false> {
  static constexpr int kRun = 16, kBytes = 210;

  explicit BlockQ6K(const unsigned char* b) : block(b) {
    const float d = half_at(b + 208);
    for (int i = 0; i < 16; i += kLanes) {
      const Whole whole = widened_signed(load_as<Bytes>(b + 192 + i));
      vstore(scales.of + i, __builtin_bit_cast(Vec, d * __builtin_convertvector(whole, Floats)));
    }
    scales.settle();
  }
  float scale(int k) const { return scales.of[k / 16]; }
  float minimum(int) const { return 0; }
  template <class Lanes>
  Lanes index(int k) const {
    const int part = k / 128, run = k / 32 % 4, at = k % 32;
    const Lanes low = bytes_at<Lanes>(block + 64 * part + at + 32 * (run % 2)) >> 4 * (run / 2);
    return above(4, low, moved(bytes_at<Lanes>(block + 128 + 32 * part + at), 2 * run, 4));
  }

  const unsigned char* block;
  RunNumbers scales;
};

// d, high bits of the scales of 32 elements, their low bits, nibbles.
struct BlockIq4Xs : SuperBlock, Iq4Level {
  static constexpr int kRun = 32, kBytes = 136;

  explicit BlockIq4Xs(const unsigned char* b) : codes(b + 8) {
    std::uint64_t low = word_at(b + 4), high = word_at(b) >> 16;
    low = (low | low << 16) & 0x0000ffff0000ffffu;
    low = (low | low << 8) & 0x00ff00ff00ff00ffu;
    low = (low | low << 4) & 0x0f0f0f0f0f0f0f0fu;
    high = (high | high << 24) & 0x000000ff000000ffu;
    high = (high | high << 12) & 0x000f000f000f000fu;
    high = (high | high << 6) & 0x0303030303030303u;
    scaled_bytes(low | high << 4, 32, half_at(b), scales.of);
    scales.settle();
  }
  float scale(int k) const { return scales.of[k / 32]; }
  float minimum(int) const { return 0; }
  template <class Lanes>
  Lanes index(int k) const {
    return halves_at<Lanes>(codes + k / 32 * 16, k % 32);
  }

  const unsigned char* codes;
  RunNumbers scales;
};

// use.operator()<Block>() for the layout of a type of kReadBlocks.
template <class Use>
inline void with_block(BlockStorage type, const Use& use) {
  switch (type) {
    case BlockStorage::kQ4_0:
      return use.template operator()<BlockOf32<WholeLevels<4, 8, false>>>();
    case BlockStorage::kQ4_1:
      return use.template operator()<BlockOf32<WholeLevels<4, 0, true>>>();
    case BlockStorage::kQ5_0:
      return use.template operator()<BlockOf32<WholeLevels<5, 16, false>>>();
    case BlockStorage::kQ5_1:
      return use.template operator()<BlockOf32<WholeLevels<5, 0, true>>>();
    case BlockStorage::kQ8_0:
      return use.template operator()<BlockOfBytes>();
    case BlockStorage::kQ2_K:
      return use.template operator()<BlockQ2K>();
    case BlockStorage::kQ3_K:
      return use.template operator()<BlockQ3K>();
    case BlockStorage::kQ4_K:
      return use.template operator()<BlockQ45K<4>>();
    case BlockStorage::kQ5_K:
      return use.template operator()<BlockQ45K<5>>();
    case BlockStorage::kQ6_K:
      return use.template operator()<BlockQ6K>();
    case BlockStorage::kIq4Nl:
      return use.template operator()<BlockOf32<Iq4Level>>();
    case BlockStorage::kIq4Xs:
      return use.template operator()<BlockIq4Xs>();
    default:
      return;  // none of kReadBlocks
  }
}

// Asks for what is read of a row some blocks after the one at `data`.
template <class Block>
inline void fetch_ahead(const unsigned char* data) {
  constexpr std::int64_t kAhead = 4096;
#pragma GCC unroll 4
  for (int byte = 0; byte < Block::kBytes; byte += 64) __builtin_prefetch(data + byte + kAhead);
}

// add_block(nth) for each of the blocks of a row, kTogether at a time: nth counts those, and is
// known when it is compiled.
template <int kTogether, class AddBlock>
inline void for_blocks(std::int64_t blocks, const AddBlock& add_block) {
  for (; blocks >= kTogether; blocks -= kTogether) {
#pragma GCC unroll 4
    for (int nth = 0; nth < kTogether; ++nth) add_block(nth);
  }
  for (; blocks > 0; --blocks) add_block(0);
}
