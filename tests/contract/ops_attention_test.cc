// Every implementation of attention and kv_write, against sums in double.
#include <cmath>
#include <limits>
#include <list>

#include "contract/op_support.h"
#include "formats/kv_type.h"
#include "formats/registry.h"
#include "support/tolerance.h"

namespace nibble::test {
namespace {

struct Shape {
  std::int64_t q_rows = 1;
  std::int64_t kv_rows = 1;
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t head_dim = 8;
};

struct Options {
  KvType kv = KvType::kF32;
  bool causal = true;
  std::int64_t window = 0;
  float softcap = 0;
  bool alibi = false;
  bool sinks = false;
  std::int64_t block_rows = 0;  // above 0: the cache lies in blocks of so many rows
};

// Two sequences in one call: the case's, and one query over one key, so that offsets matter.
class AttentionCase {
 public:
  AttentionCase(const Shape& shape, const Options& options)
      : shape_(shape),
        options_(options),
        rows_(shape.q_rows + 1),
        q_stride_(shape.heads * shape.head_dim + 4),
        head_bytes_(with_gap(kv_row_bytes(options.kv, shape.head_dim), 3)),
        row_bytes_(with_gap(shape.kv_heads * head_bytes_, 6)),
        q_(random_floats(rows_ * q_stride_, 11)),
        slopes_(random_floats(shape.heads, 12, 0.05f)),
        sinks_(random_floats(shape.heads, 15, 4.0f)) {
    store(13, k_, k_values_);
    store(14, v_, v_values_);
    sequences_ = {sequence(0, shape.q_rows, 0, shape.kv_rows),
                  sequence(shape.q_rows, 1, shape.kv_rows, 1)};
    if (options.block_rows > 0) {
      for (AttentionSequence& s : sequences_) lay_in_blocks(s);
    }
  }

  // Empty when the outputs agree with the definition, or the implementation does not take the case.
  std::string check(Backend& backend) {
    const std::int64_t out_cols = shape_.heads * shape_.head_dim;
    GuardedOutput out(rows_, out_cols, out_cols + 7);
    if (!try_run(backend, args(out.data(), out_cols + 7))) return "";
    ++checked_;
    if (const std::string damage = out.damage(); !damage.empty()) return damage;
    for (const AttentionSequence& s : sequences_) {
      for (std::int64_t t = 0; t < s.q_rows; ++t) {
        for (std::int64_t h = 0; h < shape_.heads; ++h) {
          const std::string failure = check_row(s, t, h, out);
          if (!failure.empty()) return failure;
        }
      }
    }
    return "";
  }

  // A gap after each row: of any size, or, for heads that fill vectors, one that keeps rows where
  // kernels with vector loads want them.
  std::int64_t with_gap(std::int64_t bytes, std::int64_t gap) const {
    constexpr std::int64_t kVector = 16;
    return shape_.head_dim % kVector != 0 ? bytes + gap : (bytes / kVector + 2) * kVector;
  }

  // Bits of the outputs; nothing when the implementation does not take the case.
  std::vector<float> output(Backend& backend) {
    const std::int64_t cols = shape_.heads * shape_.head_dim;
    std::vector<float> out(static_cast<std::size_t>(rows_ * cols));
    if (!try_run(backend, args(out.data(), cols))) out.clear();
    return out;
  }

  // What a linear layer makes of the outputs, in one chain or op by op; nothing when the
  // implementation does not take the case.
  std::vector<float> projected(Backend& backend, const LinearWeight& weight, bool chained) {
    const std::int64_t cols = shape_.heads * shape_.head_dim;
    GuardedOutput out(rows_, cols, cols);
    const AttentionArgs attention = args(out.data(), cols);
    if (!try_run(backend, attention)) return {};
    std::vector<float> y(static_cast<std::size_t>(rows_ * weight.canonical.rows), 0.25f);
    LinearArgs linear;
    linear.x = out.data();
    linear.x_stride = cols;
    linear.m = rows_;
    linear.w = &weight;
    linear.y = y.data();
    linear.y_stride = weight.canonical.rows;
    linear.accumulate = true;
    if (chained) {
      const ChainLink links[] = {attention, std::span(&linear, 1)};
      backend.run_chain(links);
    } else {
      backend.run(linear);
    }
    EXPECT_EQ("", out.damage());
    return y;
  }

  // Whether a check has compared anything.
  bool checked() const { return checked_ > 0; }

  // How the implementation rounds queries and weights.
  void rounded(Arithmetic arithmetic) { arithmetic_ = arithmetic; }

  // Test of the test: makes the expectation see one key fewer.
  void hide_last_key() { hidden_ = 1; }

 private:
  AttentionArgs args(float* out, std::int64_t out_stride) const {
    AttentionArgs args;
    args.q = {q_.data(), q_stride_, shape_.head_dim};
    args.sequences = sequences_;
    args.heads = shape_.heads;
    args.kv_heads = shape_.kv_heads;
    args.head_dim = shape_.head_dim;
    args.kv_type = options_.kv;
    args.causal = options_.causal;
    args.window = options_.window;
    args.scale = scale_;
    args.softcap = options_.softcap;
    if (options_.alibi) args.alibi_slopes = slopes_;
    if (options_.sinks) args.sinks = sinks_;
    args.out = out;
    args.out_stride = out_stride;
    return args;
  }

  AttentionSequence sequence(std::int64_t q_begin, std::int64_t q_rows, std::int64_t kv_begin,
                             std::int64_t kv_rows) const {
    const std::size_t at = static_cast<std::size_t>(kv_begin * row_bytes_);
    AttentionSequence s;
    s.q_begin = q_begin;
    s.q_rows = q_rows;
    s.kv_rows = kv_rows;
    s.q_offset = kv_rows - q_rows;
    s.k = {k_.data() + at, row_bytes_, head_bytes_};
    s.v = {v_.data() + at, row_bytes_, head_bytes_};
    return s;
  }

  // The same rows in blocks that stand in reverse order, with poison between them.
  void lay_in_blocks(AttentionSequence& s) {
    const std::int64_t rows = options_.block_rows;
    const std::int64_t block_bytes = (rows + 1) * row_bytes_;
    const std::int64_t count = (s.kv_rows + rows - 1) / rows;
    Blocks& blocks = blocks_.emplace_back();
    blocks.k.assign(static_cast<std::size_t>(count * block_bytes), std::byte{0xff});
    blocks.v = blocks.k;
    for (std::int64_t b = 0; b < count; ++b) {
      blocks.offsets.push_back((count - 1 - b) * block_bytes);
      const auto from = static_cast<std::size_t>(b * rows * row_bytes_);
      const auto bytes =
          static_cast<std::size_t>(std::min(rows, s.kv_rows - b * rows) * row_bytes_);
      const auto to = static_cast<std::size_t>(blocks.offsets.back());
      std::memcpy(blocks.k.data() + to, static_cast<const std::byte*>(s.k.data) + from, bytes);
      std::memcpy(blocks.v.data() + to, static_cast<const std::byte*>(s.v.data) + from, bytes);
    }
    s.k.data = blocks.k.data();
    s.v.data = blocks.v.data();
    s.blocks = blocks.offsets;
    s.block_rows = rows;
  }

  double kv(const std::vector<float>& values, const AttentionSequence& s, std::int64_t j,
            std::int64_t head, std::int64_t d) const {
    const std::int64_t row = (s.q_begin == 0 ? 0 : shape_.kv_rows) + j;
    return values[static_cast<std::size_t>((row * shape_.kv_heads + head) * shape_.head_dim + d)];
  }

  // Kernels may work on offset and codes apart: what rounding errors are relative to, beyond the
  // value itself.
  double parts(const std::vector<std::byte>& rows, const AttentionSequence& s, std::int64_t j,
               std::int64_t head) const {
    if (!is_quantized(options_.kv)) return 0;
    const std::int64_t row = (s.q_begin == 0 ? 0 : shape_.kv_rows) + j;
    const KvScale scale = kv_row_scale(rows.data() + row * row_bytes_ + head * head_bytes_);
    const float top = options_.kv == KvType::kInt8   ? 255.0f
                      : options_.kv == KvType::kInt4 ? 15.0f
                                                     : 448.0f;
    return std::abs(scale.offset) + top * scale.scale;
  }

  // Random rows with gaps between them, as stored and as they read back.
  void store(unsigned seed, std::vector<std::byte>& bytes, std::vector<float>& values) const {
    const std::int64_t rows = shape_.kv_rows + 1;
    values = random_floats(rows * shape_.kv_heads * shape_.head_dim, seed);
    bytes.assign(static_cast<std::size_t>(rows * row_bytes_), std::byte{0xff});
    for (std::int64_t i = 0; i < rows * shape_.kv_heads; ++i) {
      std::byte* row =
          bytes.data() + i / shape_.kv_heads * row_bytes_ + i % shape_.kv_heads * head_bytes_;
      float* value = values.data() + i * shape_.head_dim;
      encode_kv_row(options_.kv, value, shape_.head_dim, row);
      decode_kv_row(options_.kv, row, shape_.head_dim, value);
    }
  }

  std::string check_row(const AttentionSequence& s, std::int64_t t, std::int64_t h,
                        const GuardedOutput& out) const {
    const std::int64_t kv_head = h / (shape_.heads / shape_.kv_heads);
    const std::int64_t position = s.q_offset + t;
    const double u = unit_roundoff(DType::kF32);
    // Queries and weights are rounded, to bf16 or to bytes of a block's range, and so are keys and
    // values that were codes. (Bytes cost no more here: no query is much larger than others.)
    const double rounding = arithmetic_ == Arithmetic::kFloat32 ? 0.0 : unit_roundoff(DType::kBF16);
    std::vector<double> scores(static_cast<std::size_t>(s.kv_rows),
                               -std::numeric_limits<double>::infinity());
    double score_error = 0;
    double largest = -std::numeric_limits<double>::infinity();
    for (std::int64_t j = 0; j < s.kv_rows - hidden_; ++j) {
      if (options_.causal && j > position) continue;
      if (options_.window > 0 && j <= position - options_.window) continue;
      double sum = 0;
      double magnitude = 0;
      for (std::int64_t d = 0; d < shape_.head_dim; ++d) {
        const double q =
            q_[static_cast<std::size_t>((s.q_begin + t) * q_stride_ + h * shape_.head_dim + d)];
        const double product = static_cast<double>(scale_) * q * kv(k_values_, s, j, kv_head, d);
        sum += product;
        magnitude += std::abs(product) +
                     std::abs(static_cast<double>(scale_) * q) * parts(k_, s, j, kv_head);
      }
      const double cap = options_.softcap;
      if (cap > 0) sum = cap * std::tanh(sum / cap);
      const double bias =
          options_.alibi
              ? static_cast<double>(slopes_[static_cast<std::size_t>(h)]) * static_cast<double>(j)
              : 0.0;
      sum += bias;
      score_error = std::max(score_error, dot_error_bound(shape_.head_dim + 2, magnitude) +
                                              2 * rounding * magnitude +
                                              8 * u * (std::abs(sum) + std::abs(bias) + cap));
      scores[static_cast<std::size_t>(j)] = sum;
      largest = std::max(largest, sum);
    }
    const double sink = options_.sinks ? static_cast<double>(sinks_[static_cast<std::size_t>(h)])
                                       : -std::numeric_limits<double>::infinity();
    largest = std::max(largest, sink);
    double total = options_.sinks ? std::exp(sink - largest) : 0;
    for (double& w : scores) total += w = std::isinf(w) ? 0 : std::exp(w - largest);
    for (std::int64_t d = 0; d < shape_.head_dim; ++d) {
      double sum = 0;
      double magnitude = 0;
      for (std::int64_t j = 0; total > 0 && j < s.kv_rows; ++j) {
        const double weight = scores[static_cast<std::size_t>(j)] / total;
        const double part = weight * kv(v_values_, s, j, kv_head, d);
        sum += part;
        magnitude += std::abs(part) + weight * parts(v_, s, j, kv_head);
      }
      // A relative error of each weight (twice that of its score, and the exponential's), and the
      // sums over the keys in numerator and denominator.
      const double bound = 2 * (score_error + rounding + 8 * u) * magnitude +
                           2 * dot_error_bound(s.kv_rows + 8, magnitude);
      const float actual = out.at(s.q_begin + t, h * shape_.head_dim + d);
      if (!(std::abs(static_cast<double>(actual) - sum) <= bound)) {
        return fmt::format("out[{}, head {}, {}]: {} instead of {}, bound {}", s.q_begin + t, h, d,
                           actual, sum, bound);
      }
    }
    return "";
  }

  Shape shape_;
  Options options_;
  std::int64_t rows_;
  std::int64_t q_stride_;
  std::int64_t head_bytes_;
  std::int64_t row_bytes_;
  float scale_ = 0.3f;
  std::int64_t hidden_ = 0;
  int checked_ = 0;
  Arithmetic arithmetic_ = Arithmetic::kFloat32;
  std::vector<float> q_;
  std::vector<float> slopes_;
  std::vector<float> sinks_;
  std::vector<std::byte> k_;
  std::vector<std::byte> v_;
  std::vector<float> k_values_;  // what the cache holds after rounding
  std::vector<float> v_values_;
  struct Blocks {
    std::vector<std::byte> k, v;
    std::vector<std::int64_t> offsets;
  };
  std::list<Blocks> blocks_;  // of each sequence: they do not move
  std::vector<AttentionSequence> sequences_;
};

constexpr Shape kShapes[] = {
    {.q_rows = 1, .kv_rows = 1, .heads = 1, .kv_heads = 1, .head_dim = 1},
    {.q_rows = 1, .kv_rows = 300, .heads = 6, .kv_heads = 2, .head_dim = 64},
    {.q_rows = 3, .kv_rows = 5, .heads = 4, .kv_heads = 4, .head_dim = 20},
    {.q_rows = 70, .kv_rows = 70, .heads = 4, .kv_heads = 1, .head_dim = 33},
    {.q_rows = 40, .kv_rows = 290, .heads = 6, .kv_heads = 3, .head_dim = 80},
    {.q_rows = 260, .kv_rows = 260, .heads = 2, .kv_heads = 2, .head_dim = 16},
    {.q_rows = 2, .kv_rows = 130, .heads = 11, .kv_heads = 1, .head_dim = 40},
};

constexpr Options kOptions[] = {
    {},
    {.kv = KvType::kF16},
    {.kv = KvType::kBF16, .window = 9},
    {.kv = KvType::kInt8},
    {.kv = KvType::kInt8, .window = 9, .softcap = 2.0f},
    {.kv = KvType::kInt4},
    {.kv = KvType::kInt4, .alibi = true},
    {.kv = KvType::kFp8},
    {.kv = KvType::kFp8, .window = 9, .alibi = true},
    {.causal = false},
    {.causal = false, .window = 130},
    {.softcap = 2.0f},
    {.kv = KvType::kBF16, .alibi = true},
    {.window = 1, .softcap = 5.0f, .alibi = true},
    {.sinks = true},
    {.kv = KvType::kInt8, .window = 9, .sinks = true},
};

class AttentionContract : public ::testing::TestWithParam<ImplRow> {
 protected:
  static std::unique_ptr<Backend> forced(int threads = 2) {
    return forced_backend("attention", GetParam().name, threads);
  }
  static std::string check(const Shape& shape, const Options& options, Backend& backend) {
    AttentionCase attention(shape, options);
    attention.rounded(GetParam().arithmetic);
    const std::string failure = attention.check(backend);
    checked_ += attention.checked() ? 1 : 0;
    return failure;
  }
  static inline int checked_ = 0;  // cases that the implementation took
};

TEST_P(AttentionContract, ChainWithALinearLayerIsAsOpByOp) {
  const auto backend = forced_backend("attention", GetParam().name);
  for (const char* name : {"int4_g64_sym", "bf16", "f32"}) {
    for (const std::int64_t head_dim : {64, 128}) {
      const std::int64_t cols = 6 * head_dim;
      const std::vector<float> w = random_floats(128 * cols, 17);
      const LinearWeight weight =
          backend->prepare(parse_weight_format(name)->encode(w.data(), 128, cols));
      for (const std::int64_t rows : {1, 20, 150}) {
        AttentionCase test({rows, rows + 9, 6, 2, head_dim}, {.kv = KvType::kBF16});
        const std::vector<float> single = test.projected(*backend, weight, false);
        EXPECT_EQ(single, test.projected(*backend, weight, true))
            << name << ", " << rows << " rows of " << head_dim;
      }
    }
  }
}

TEST_P(AttentionContract, EveryShapeAndOption) {
  const auto backend = forced();
  checked_ = 0;
  for (std::size_t s = 0; s < std::size(kShapes); ++s) {
    for (std::size_t o = 0; o < std::size(kOptions); ++o) {
      EXPECT_EQ(check(kShapes[s], kOptions[o], *backend), "") << "shape " << s << ", options " << o;
    }
  }
  EXPECT_GE(checked_, 6);
}

// One query: every number of heads that share keys, every type, and sizes that fill no vector.
TEST_P(AttentionContract, EveryGroupAndType) {
  const auto backend = forced();
  for (const KvType type : kKvTypes) {
    for (std::int64_t group = 1; group <= 9; ++group) {
      for (const std::int64_t head_dim : {13 + 10 * group, std::int64_t{64}, std::int64_t{128}}) {
        const Shape shape = {.q_rows = 1,
                             .kv_rows = 20 + 7 * group,
                             .heads = 2 * group,
                             .kv_heads = 2,
                             .head_dim = head_dim};
        EXPECT_EQ(check(shape, {.kv = type}, *backend), "")
            << to_string(type) << ", group " << group << ", head size " << head_dim;
      }
    }
  }
}

// More keys than one task takes: the parts must be put together again.
TEST_P(AttentionContract, LongContexts) {
  const auto backend = forced();
  for (const KvType type : kKvTypes) {
    for (const std::int64_t kv_rows : {512, 513, 1100}) {
      for (const std::int64_t group : {2, 8}) {
        const Shape shape = {.q_rows = 1,
                             .kv_rows = kv_rows,
                             .heads = group,
                             .kv_heads = 1,
                             .head_dim = kv_rows == 513 ? 64 : 24 + 2 * group};
        EXPECT_EQ(check(shape, {.kv = type}, *backend), "")
            << to_string(type) << ", " << kv_rows << " keys, group " << group;
        const Options window = {.kv = type, .window = 600, .alibi = true};
        EXPECT_EQ(check(shape, window, *backend), "")
            << to_string(type) << ", " << kv_rows << " keys, window, group " << group;
      }
    }
  }
}

// A cache in blocks, shorter and longer than what kernels take at once.
TEST_P(AttentionContract, KeysInBlocks) {
  const auto backend = forced();
  checked_ = 0;
  for (const Shape& shape : kShapes) {
    for (Options options : kOptions) {
      for (const std::int64_t rows : {7, 64}) {
        options.block_rows = rows;
        EXPECT_EQ(check(shape, options, *backend), "")
            << to_string(options.kv) << ", blocks of " << rows << ", " << shape.kv_rows << " keys";
      }
    }
  }
  const Shape many = {.q_rows = 1, .kv_rows = 1500, .heads = 4, .kv_heads = 2, .head_dim = 64};
  for (const KvType type : kKvTypes) {
    EXPECT_EQ(check(many, {.kv = type, .block_rows = 600}, *backend), "") << to_string(type);
  }
  EXPECT_GE(checked_, 12);
}

TEST_P(AttentionContract, ThreadsDoNotChangeTheResult) {
  const Shape shape = {.q_rows = 1, .kv_rows = 3000, .heads = 16, .kv_heads = 2, .head_dim = 64};
  const auto one = forced(1);
  const auto three = forced(3);
  for (const KvType type : kKvTypes) {
    AttentionCase single(shape, {.kv = type});
    EXPECT_EQ(single.output(*one), single.output(*three)) << to_string(type);
  }
}

// What heads see of kRows keys one of which takes nine tenths and the others share the rest. The
// value of that one is 1, -1, 1, ... and those of the others the opposite.
class OneLargeWeight {
 public:
  static constexpr std::int64_t kHeadDim = 64, kRows = 100, kHeads = 8;

  OneLargeWeight(KvType type, std::int64_t large)
      : type_(type), bytes_(kv_row_bytes(type, kHeadDim)) {
    k_.resize(static_cast<std::size_t>(kRows * bytes_));
    v_ = k_;
    const float score = std::log(9.0f * (kRows - 1));  // others: 0
    for (std::int64_t j = 0; j < kRows; ++j) {
      const std::vector<float> key(kHeadDim, j == large ? score / kHeadDim : 0.0f);
      encode_kv_row(type, key.data(), kHeadDim, k_.data() + j * bytes_);
      std::vector<float> value(kHeadDim);
      for (std::size_t d = 0; d < value.size(); ++d) {
        value[d] = (d % 2 == 0) == (j == large) ? 1.0f : -1.0f;
      }
      encode_kv_row(type, value.data(), kHeadDim, v_.data() + j * bytes_);
    }
  }

  // Empty when the implementation does not take the type.
  std::vector<float> output(Backend& backend) const {
    const AttentionSequence sequence = {.q_rows = 1,
                                        .kv_rows = kRows,
                                        .q_offset = kRows - 1,
                                        .k = {k_.data(), bytes_, 0},
                                        .v = {v_.data(), bytes_, 0},
                                        .blocks = {}};
    const std::vector<float> q(static_cast<std::size_t>(kHeads * kHeadDim), 1.0f);
    std::vector<float> out(q.size());
    AttentionArgs args;
    args.q = {q.data(), kHeads * kHeadDim, kHeadDim};
    args.sequences = {&sequence, 1};
    args.heads = kHeads;
    args.kv_heads = 1;
    args.head_dim = kHeadDim;
    args.kv_type = type_;
    args.out = out.data();
    args.out_stride = kHeads * kHeadDim;
    if (!try_run(backend, args)) out.clear();
    return out;
  }

 private:
  KvType type_;
  std::int64_t bytes_;
  std::vector<std::byte> k_;
  std::vector<std::byte> v_;
};

// Kernels that round weights may neither lose small ones beside a large one nor mistake keys.
TEST_P(AttentionContract, OneLargeWeightAndManySmallOnes) {
  const auto backend = forced();
  for (const KvType type : kKvTypes) {
    for (std::int64_t large = 0; large < OneLargeWeight::kRows; ++large) {
      const std::vector<float> out = OneLargeWeight(type, large).output(*backend);
      // Weights add up to one; bf16 keys and weights are off by 2^-9, the score by as much of 6.8.
      for (std::size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(out[i], i % 2 == 0 ? 0.8f : -0.8f, 0.01f)
            << to_string(type) << ", key " << large << ", column " << i;
      }
    }
  }
}

TEST_P(AttentionContract, AMissingKeyIsCaught) {
  const auto backend = forced();
  int caught = 0;
  for (const std::int64_t q_rows : {3, 20}) {
    AttentionCase mutant(
        {.q_rows = q_rows, .kv_rows = q_rows + 2, .heads = 2, .kv_heads = 1, .head_dim = 16},
        {.kv = KvType::kInt8});
    mutant.rounded(GetParam().arithmetic);
    mutant.hide_last_key();
    const std::string failure = mutant.check(*backend);
    if (!mutant.checked()) continue;
    EXPECT_NE(failure, "");
    ++caught;
  }
  EXPECT_GT(caught, 0);
}

TEST_P(AttentionContract, NoSequencesAndNoQueriesAreFine) {
  const auto backend = forced();
  AttentionArgs args;
  args.heads = args.kv_heads = 2;
  args.kv_type = KvType::kInt8;
  args.head_dim = 8;
  EXPECT_NO_THROW(try_run(*backend, args));
  const std::vector<AttentionSequence> empty(2);
  args.sequences = empty;
  EXPECT_NO_THROW(try_run(*backend, args));
}

INSTANTIATE_TEST_SUITE_P(Impls, AttentionContract, ::testing::ValuesIn(usable_rows("attention")),
                         [](const auto& test) { return test.param.name; });

// Values halfway between two numbers of a type, which go to the even one: those of bf16 have 8
// bits, those of f16 11 and those of fp8 4, where a value of 448 makes the scale 1; the codes of a
// row of int8 with both ends of [0, 255] are its values.
std::vector<float> ties(KvType type, std::int64_t head_dim) {
  std::vector<float> values;
  const float half = type == KvType::kF16 ? 0x1p-11f : type == KvType::kFp8 ? 0x1p-4f : 0x1p-8f;
  for (std::int64_t d = 0; d < head_dim; ++d) {
    if (type == KvType::kFp8) {
      values.push_back(d == 1 ? 448.0f : 1 + static_cast<float>(2 * (d % 8) + 1) * half);
    } else if (is_quantized(type)) {
      const float code = static_cast<float>(d % 7) + 0.5f;
      values.push_back(d == 0 ? 0 : d == 1 ? 255.0f : code);
    } else {
      const float sign = d % 3 == 0 ? -1.0f : 1.0f;
      values.push_back(sign * (1 + static_cast<float>(2 * d + 1) * half));
    }
  }
  return values;
}

class KvWriteContract : public ::testing::TestWithParam<std::string> {};

// Rows of three heads, with gaps between them in source and cache.
TEST_P(KvWriteContract, StoresTheBitsThatTheTypeDefines) {
  const auto backend = forced_backend("kv_write", GetParam());
  const std::int64_t rows = 5, heads = 3;
  // Rows need no alignment on a CPU; a device may want that of their numbers.
  const bool on_host = std::getenv("NIBBLE_TEST_DEVICE") == nullptr;
  for (const std::int64_t head_dim : {1, 2, 21, 64, 80, 1030}) {
    if (head_dim > 1024 && !on_host) continue;
    const std::int64_t head_stride = head_dim + 1, x_stride = heads * head_stride + 7;
    std::vector<float> x = random_floats(rows * x_stride, 21, 100);
    x[0] = std::numeric_limits<float>::infinity();
    x[static_cast<std::size_t>(head_stride)] = -1e30f;
    x[static_cast<std::size_t>(2 * head_stride)] = 1e-42f;
    x[static_cast<std::size_t>(x_stride)] = std::numeric_limits<float>::quiet_NaN();
    std::fill_n(x.begin() + 2 * x_stride, head_dim, 0.3f);
    for (std::int64_t i = 0; i < heads; ++i) {  // mirror images of themselves: equal ranges
      const auto row = x.begin() + 3 * x_stride + i * head_stride;
      for (std::int64_t d = 1; d < head_dim; d += 2) row[d] = -row[d - 1];
    }
    for (const KvType type : kKvTypes) {
      const std::int64_t gap = on_host ? 2 : 4 - kv_row_bytes(type, head_dim) % 4;
      const std::int64_t bytes = kv_row_bytes(type, head_dim) + gap,
                         row_bytes = heads * bytes + (on_host ? 5 : 8);
      const std::vector<std::byte> empty(static_cast<std::size_t>(rows * row_bytes),
                                         std::byte{0xcc});
      std::vector<std::byte> keys = empty, values = empty, expected = empty;
      // Rows of two sequences, the second first.
      const HeadView<void> k = {keys.data(), row_bytes, bytes};
      const HeadView<void> v = {values.data(), row_bytes, bytes};
      const std::vector<KvWriteSequence> sequences = {{3, 2, from_row(k, 3), from_row(v, 3)},
                                                      {0, 3, k, v}};
      KvWriteArgs args;
      args.k = {x.data(), x_stride, head_stride};
      args.v = {x.data(), x_stride, head_stride};
      args.sequences = sequences;
      args.heads = heads;
      args.head_dim = head_dim;
      args.type = type;
      backend->run(args);
      for (std::int64_t i = 0; i < rows * heads; ++i) {
        encode_kv_row(type, x.data() + i / heads * x_stride + i % heads * head_stride, head_dim,
                      expected.data() + i / heads * row_bytes + i % heads * bytes);
      }
      EXPECT_EQ(keys, expected) << to_string(type) << ", " << head_dim;
      EXPECT_EQ(values, expected) << to_string(type) << ", " << head_dim;
    }
  }
}

// Two queries to a key; the first half of each head is rotated.
TEST_P(KvWriteContract, RotatesQueriesAndKeysOnTheWay) {
  const auto backend = forced_backend("kv_write", GetParam());
  constexpr std::int64_t kRows = 3, kHeads = 2, kDim = 32, kHalf = 8;
  const std::vector<float> q = random_floats(kRows * 2 * kHeads * kDim, 51);
  const std::vector<float> k = random_floats(kRows * kHeads * kDim, 52);
  const std::vector<std::int32_t> positions = {5, 6, 1000};
  std::vector<float> inv_freq;
  for (std::int64_t i = 0; i < kHalf; ++i) {
    inv_freq.push_back(static_cast<float>(std::pow(10000.0, static_cast<double>(-i) / kHalf)));
  }
  const auto rotated = [&](const std::vector<float>& x, std::int64_t heads, std::size_t i) {
    const auto at = static_cast<std::int64_t>(i);
    const std::int64_t d = at % kDim;
    if (d >= 2 * kHalf) return static_cast<double>(x[i]);
    const float angle = static_cast<float>(positions[i / static_cast<std::size_t>(heads * kDim)]) *
                        inv_freq[static_cast<std::size_t>(d % kHalf)];
    const auto other = static_cast<std::size_t>(d < kHalf ? at + kHalf : at - kHalf);
    const double sine = (d < kHalf ? -1 : 1) * std::sin(static_cast<double>(angle));
    return x[i] * std::cos(static_cast<double>(angle)) + x[other] * sine;
  };
  std::vector<float> queries = q, keys = k, stored_keys(k.size(), NAN), stored_values = stored_keys;
  constexpr std::int64_t kRowBytes = kHeads * kDim * 4, kHeadBytes = kDim * 4;
  const KvWriteSequence sequence = {0,
                                    kRows,
                                    {stored_keys.data(), kRowBytes, kHeadBytes},
                                    {stored_values.data(), kRowBytes, kHeadBytes}};
  RopeArgs rope;
  rope.x = {queries.data(), 2 * kHeads * kDim, kDim};
  rope.rows = kRows;
  rope.heads = 2 * kHeads;
  rope.rotary_dim = 2 * kHalf;
  rope.inv_freq = inv_freq;
  rope.positions = positions;
  KvWriteArgs args;
  args.k = {keys.data(), kHeads * kDim, kDim};
  args.v = {k.data(), kHeads * kDim, kDim};
  args.sequences = {&sequence, 1};
  args.heads = kHeads;
  args.head_dim = kDim;
  args.rope = &rope;
  if (!try_run(*backend, args)) return;
  constexpr double kBound = 1e-5;  // of sums of two products of a few units
  for (std::size_t i = 0; i < q.size(); ++i) {
    ASSERT_NEAR(queries[i], rotated(q, 2 * kHeads, i), kBound) << i;
  }
  for (std::size_t i = 0; i < k.size(); ++i) {
    ASSERT_NEAR(stored_keys[i], rotated(k, kHeads, i), kBound) << i;
  }
  EXPECT_EQ(stored_values, k);
}

TEST_P(KvWriteContract, TiesGoToEven) {
  const auto backend = forced_backend("kv_write", GetParam());
  constexpr std::int64_t kHeadDim = 37;
  for (const KvType type : kKvTypes) {
    if (type == KvType::kF32 || type == KvType::kInt4) continue;  // int4: a fit has no ties
    std::vector<float> x = ties(type, kHeadDim);
    const std::int64_t bytes = kv_row_bytes(type, kHeadDim);
    std::vector<std::byte> row(static_cast<std::size_t>(bytes));
    std::vector<std::byte> values_row = row;
    KvWriteArgs args;
    const KvWriteSequence sequence = {0, 1, {row.data(), bytes, 0}, {values_row.data(), bytes, 0}};
    args.k = {x.data(), kHeadDim, kHeadDim};
    args.v = {x.data(), kHeadDim, kHeadDim};
    args.sequences = {&sequence, 1};
    args.heads = 1;
    args.head_dim = kHeadDim;
    args.type = type;
    backend->run(args);
    EXPECT_EQ(values_row, row);
    std::vector<float> read(x.size());
    decode_kv_row(type, row.data(), kHeadDim, read.data());
    // nearbyint() goes to even; a step of bf16 in [1, 2) is 2^-7, of f16 2^-10, of fp8 2^-3, of
    // integer codes 1.
    const float step = type == KvType::kBF16  ? 0x1p-7f
                       : type == KvType::kF16 ? 0x1p-10f
                       : type == KvType::kFp8 ? 0x1p-3f
                                              : 1.0f;
    for (std::size_t d = 0; d < x.size(); ++d) {
      EXPECT_EQ(read[d], std::nearbyint(x[d] / step) * step) << to_string(type) << ", " << d;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Impls, KvWriteContract, ::testing::ValuesIn(usable_impls("kv_write")),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace nibble::test
