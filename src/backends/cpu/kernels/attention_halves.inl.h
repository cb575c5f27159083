// Attention of one query of each head of a group over a cache of bf16, by products of pairs of bf16
// (attention_dots.inl.h): queries and weights of the softmax are rounded to bf16.
// Included inside an anonymous namespace of an ISA unit.

class HalfProducts {
 public:
  using Sums = Vec;
  static constexpr KvStorage kType = KvStorage::kBF16;
  static constexpr std::int64_t kWordValues = 2;
  static constexpr int kQueryParts = 1;

  HalfProducts(ScratchPlan& plan, std::int64_t head_dim, std::int64_t group)
      : s(plan, head_dim, group, 2 * head_dim, kWordValues, kQueryParts), head_dim_(head_dim) {}

  static Sums zero() { return vzero(); }
  static Sums with_keys(Sums sum, Words keys, Words query) { return pdot(sum, query, keys); }
  static Sums with_values(Sums sum, Words weights, Words values) {
    return pdot(sum, weights, values);
  }

  void round_query(const AttentionTask& t, std::int64_t g) const {
    const float* q = t.q + t.t_begin * t.q_row_stride + g * t.q_head_stride;
    const std::int64_t words = head_dim_ / kWordValues;
    unsigned char* out = query_words(s, g, words);
    const Vec scale = vset(t.scale);
    for (std::int64_t w = 0; w < words; w += kLanes, q += 2 * kLanes) {
      std::uint32_t pairs[kLanes];
      pstore(pairs, pjoin(vmul(scale, vload(q)), vmul(scale, vload(q + kLanes))));
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        __builtin_memcpy(out + 4 * (w + i) * kScoreTile, pairs + i, sizeof(std::uint32_t));
      }
    }
  }

  void pack_keys(const KvRows& block) const {
    for (std::int64_t i = 0; i < kPanelKeys; i += kLanes) {
      const unsigned char* rows = block.data + i * block.stride;
      for (std::int64_t w = 0; w < head_dim_ / kWordValues; w += kLanes) {
        pack_words(rows + 4 * w, block.stride, s.panel + w * kPanelKeys + i);
      }
    }
  }

  // What makes scores of the sums of a head and vector v of the keys of a panel.
  auto finish_scores(int /*v*/) const {
    return [](Sums sums, Sums /*last*/, std::int64_t /*head*/) { return sums; };
  }

  void start_values(std::int64_t /*group*/) const {}
  void take_numbers(const KvRows& /*block*/) const {}
  void round_weights(std::int64_t group, std::int64_t key) const {
    for (std::int64_t g = 0; g < group; ++g) {
      const float* weights = s.scores + g * kScoreStride + key;
      unsigned char* out = s.weights + 2 * g * kValueKeys;
#pragma GCC unroll 2
      for (std::int64_t j = 0; j < kValueKeys; j += 2 * kLanes) {
        pstore(out + 2 * j, pjoin(vload(weights + j), vload(weights + j + kLanes)));
      }
    }
  }
  void pack_values(const KvRows& block, std::int64_t d, std::int64_t /*rows*/) const {
    const unsigned char* row = block.data + 2 * d;
    std::uint32_t* out = s.panel;
    for (std::int64_t key = 0; key < kValueKeys; key += 2, row += 2 * block.stride) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half, out += 2 * kLanes) {
        const Words first = load_words(row + 64 * half);
        const Words second = load_words(row + block.stride + 64 * half);
        store_words(out, _mm512_unpacklo_epi16(first, second));
        store_words(out + kLanes, _mm512_unpackhi_epi16(first, second));
      }
    }
  }
  Vec add_values(Vec out, Sums sums, std::int64_t /*head*/, int /*c*/) const {
    return vadd(out, sums);
  }
  // Quarter i of a pair of vectors holds columns 8i ... 8i + 3, and 8i + 4 ... 8i + 7.
  void finish_values(std::int64_t /*head*/, float* out) const {
    const Words low = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    const Words high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half, out += 2 * kLanes) {
      const Vec even = vload(out);
      const Vec odd = vload(out + kLanes);
      vstore(out, _mm512_permutex2var_ps(even, low, odd));
      vstore(out + kLanes, _mm512_permutex2var_ps(even, high, odd));
    }
  }

  DotScratch s;

 private:
  std::int64_t head_dim_;
};

// Fewer heads are bound by memory, which products of float32 read faster (measured).
constexpr std::int64_t kHalfGroup = 5;

bool attention_halves_fit(const AttentionTask& t) {
  return t.kv_type == KvStorage::kBF16 && t.head_dim % kPanelColumns == 0 && t.group >= kHalfGroup;
}

std::int64_t attention_halves_scratch(std::int64_t head_dim, std::int64_t group) {
  return dot_scratch<HalfProducts>(head_dim, group);
}

void attention_halves(const AttentionTask& t, KeyRange keys, float* part) {
  attend_part<HalfProducts>(t, keys, part);
}
