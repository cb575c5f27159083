// Every implementation of attention and kv_write, against sums in double.
#include <cmath>
#include <limits>

#include "contract/op_support.h"
#include "support/tolerance.h"
#include "tensor/tensor.h"

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
  DType kv = DType::kF32;
  bool causal = true;
  std::int64_t window = 0;
  float softcap = 0;
  bool alibi = false;
};

// Two sequences in one call: the case's, and one query over one key, so that offsets matter.
class AttentionCase {
 public:
  AttentionCase(const Shape& shape, const Options& options)
      : shape_(shape),
        options_(options),
        rows_(shape.q_rows + 1),
        q_stride_(shape.heads * shape.head_dim + 4),
        kv_stride_(shape.kv_heads * shape.head_dim + 6),
        q_(random_floats(rows_ * q_stride_, 11)),
        slopes_(random_floats(shape.heads, 12, 0.05f)) {
    const std::vector<float> k = random_floats((shape.kv_rows + 1) * kv_stride_, 13);
    const std::vector<float> v = random_floats((shape.kv_rows + 1) * kv_stride_, 14);
    k_ = from_float(k.data(), options.kv, {shape.kv_rows + 1, kv_stride_});
    v_ = from_float(v.data(), options.kv, {shape.kv_rows + 1, kv_stride_});
    k_values_.resize(k.size());
    v_values_.resize(v.size());
    to_float(k_, k_values_.data());
    to_float(v_, v_values_.data());
    sequences_ = {sequence(0, shape.q_rows, 0, shape.kv_rows),
                  sequence(shape.q_rows, 1, shape.kv_rows, 1)};
  }

  // Empty when the outputs agree with the definition.
  std::string check(Backend& backend) {
    const std::int64_t out_cols = shape_.heads * shape_.head_dim;
    GuardedOutput out(rows_, out_cols, out_cols + 7);
    AttentionArgs args;
    args.q = {q_.data(), q_stride_, shape_.head_dim};
    args.sequences = sequences_;
    args.heads = shape_.heads;
    args.kv_heads = shape_.kv_heads;
    args.head_dim = shape_.head_dim;
    args.kv_dtype = options_.kv;
    args.causal = options_.causal;
    args.window = options_.window;
    args.scale = scale_;
    args.softcap = options_.softcap;
    args.alibi_slopes = options_.alibi ? slopes_.data() : nullptr;
    args.out = out.data();
    args.out_stride = out_cols + 7;
    if (!try_run(backend, args)) return "";
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

  // Test of the test: makes the expectation see one key fewer.
  void hide_last_key() { hidden_ = 1; }

 private:
  AttentionSequence sequence(std::int64_t q_begin, std::int64_t q_rows, std::int64_t kv_begin,
                             std::int64_t kv_rows) const {
    const std::size_t at =
        static_cast<std::size_t>(kv_begin * kv_stride_) * dtype_size(options_.kv);
    AttentionSequence s;
    s.q_begin = q_begin;
    s.q_rows = q_rows;
    s.kv_rows = kv_rows;
    s.q_offset = kv_rows - q_rows;
    s.k = {k_.bytes().data() + at, kv_stride_, shape_.head_dim};
    s.v = {v_.bytes().data() + at, kv_stride_, shape_.head_dim};
    return s;
  }

  double kv(const std::vector<float>& values, const AttentionSequence& s, std::int64_t j,
            std::int64_t head, std::int64_t d) const {
    const std::int64_t row = (s.q_begin == 0 ? 0 : shape_.kv_rows) + j;
    return values[static_cast<std::size_t>(row * kv_stride_ + head * shape_.head_dim + d)];
  }

  std::string check_row(const AttentionSequence& s, std::int64_t t, std::int64_t h,
                        const GuardedOutput& out) const {
    const std::int64_t kv_head = h / (shape_.heads / shape_.kv_heads);
    const std::int64_t position = s.q_offset + t;
    const double u = unit_roundoff(DType::kF32);
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
        magnitude += std::abs(product);
      }
      const double cap = options_.softcap;
      if (cap > 0) sum = cap * std::tanh(sum / cap);
      const double bias =
          options_.alibi
              ? static_cast<double>(slopes_[static_cast<std::size_t>(h)]) * static_cast<double>(j)
              : 0.0;
      sum += bias;
      score_error = std::max(score_error, dot_error_bound(shape_.head_dim + 2, magnitude) +
                                              8 * u * (std::abs(sum) + std::abs(bias) + cap));
      scores[static_cast<std::size_t>(j)] = sum;
      largest = std::max(largest, sum);
    }
    double total = 0;
    for (double& w : scores) total += w = std::isinf(w) ? 0 : std::exp(w - largest);
    for (std::int64_t d = 0; d < shape_.head_dim; ++d) {
      double sum = 0;
      double magnitude = 0;
      for (std::int64_t j = 0; total > 0 && j < s.kv_rows; ++j) {
        const double part =
            scores[static_cast<std::size_t>(j)] / total * kv(v_values_, s, j, kv_head, d);
        sum += part;
        magnitude += std::abs(part);
      }
      // A relative error of each weight (twice that of its score, and the exponential's), and the
      // sums over the keys in numerator and denominator.
      const double bound =
          2 * (score_error + 8 * u) * magnitude + 2 * dot_error_bound(s.kv_rows + 8, magnitude);
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
  std::int64_t kv_stride_;
  float scale_ = 0.3f;
  std::int64_t hidden_ = 0;
  std::vector<float> q_;
  std::vector<float> slopes_;
  Tensor k_;
  Tensor v_;
  std::vector<float> k_values_;  // what the cache holds after rounding
  std::vector<float> v_values_;
  std::vector<AttentionSequence> sequences_;
};

constexpr Shape kShapes[] = {
    {.q_rows = 1, .kv_rows = 1, .heads = 1, .kv_heads = 1, .head_dim = 1},
    {.q_rows = 1, .kv_rows = 300, .heads = 6, .kv_heads = 2, .head_dim = 64},
    {.q_rows = 3, .kv_rows = 5, .heads = 4, .kv_heads = 4, .head_dim = 20},
    {.q_rows = 70, .kv_rows = 70, .heads = 4, .kv_heads = 1, .head_dim = 33},
    {.q_rows = 40, .kv_rows = 290, .heads = 6, .kv_heads = 3, .head_dim = 80},
    {.q_rows = 260, .kv_rows = 260, .heads = 2, .kv_heads = 2, .head_dim = 16},
};

constexpr Options kOptions[] = {
    {},
    {.kv = DType::kF16},
    {.kv = DType::kBF16, .window = 9},
    {.causal = false},
    {.causal = false, .window = 130},
    {.softcap = 2.0f},
    {.kv = DType::kBF16, .alibi = true},
    {.window = 1, .softcap = 5.0f, .alibi = true},
};

class AttentionContract : public ::testing::TestWithParam<std::string> {};

TEST_P(AttentionContract, EveryShapeAndOption) {
  const auto backend = forced_backend("attention", GetParam());
  for (std::size_t s = 0; s < std::size(kShapes); ++s) {
    for (std::size_t o = 0; o < std::size(kOptions); ++o) {
      EXPECT_EQ(AttentionCase(kShapes[s], kOptions[o]).check(*backend), "")
          << "shape " << s << ", options " << o;
    }
  }
}

TEST_P(AttentionContract, AMissingKeyIsCaught) {
  const auto backend = forced_backend("attention", GetParam());
  AttentionCase mutant({.q_rows = 3, .kv_rows = 5, .heads = 2, .kv_heads = 1, .head_dim = 16}, {});
  mutant.hide_last_key();
  EXPECT_NE(mutant.check(*backend), "");
}

TEST_P(AttentionContract, NoSequencesAndNoQueriesAreFine) {
  const auto backend = forced_backend("attention", GetParam());
  AttentionArgs args;
  args.heads = args.kv_heads = 2;
  args.head_dim = 8;
  EXPECT_NO_THROW(backend->run(args));
  const std::vector<AttentionSequence> empty(2);
  args.sequences = empty;
  EXPECT_NO_THROW(backend->run(args));
}

INSTANTIATE_TEST_SUITE_P(Impls, AttentionContract, ::testing::ValuesIn(usable_impls("attention")),
                         [](const auto& test) { return test.param; });

class KvWriteContract : public ::testing::TestWithParam<std::string> {};

TEST_P(KvWriteContract, StoresTheRoundedBits) {
  const auto backend = forced_backend("kv_write", GetParam());
  const std::int64_t rows = 5, heads = 3, head_dim = 21, x_stride = 70, cache_stride = 80;
  std::vector<float> x = random_floats(rows * x_stride, 21, 100);
  x[3] = std::numeric_limits<float>::infinity();
  x[4] = -1e30f;
  x[5] = 1e-42f;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::size_t size = dtype_size(dtype);
    std::vector<unsigned char> cache(static_cast<std::size_t>(rows * cache_stride) * size, 0xcc);
    KvWriteArgs args;
    args.x = {x.data(), x_stride, head_dim + 1};
    args.rows = rows;
    args.heads = heads;
    args.head_dim = head_dim;
    args.dtype = dtype;
    args.cache = {cache.data(), cache_stride, head_dim + 2};
    backend->run(args);
    std::vector<unsigned char> expected(cache.size(), 0xcc);
    for (std::int64_t i = 0; i < rows * heads; ++i) {
      const std::int64_t t = i / heads;
      const std::int64_t h = i % heads;
      const Tensor row =
          from_float(x.data() + t * x_stride + h * (head_dim + 1), dtype, {head_dim});
      std::memcpy(
          expected.data() + static_cast<std::size_t>(t * cache_stride + h * (head_dim + 2)) * size,
          row.bytes().data(), row.byte_size());
    }
    EXPECT_EQ(cache, expected) << to_string(dtype);
  }
}

INSTANTIATE_TEST_SUITE_P(Impls, KvWriteContract, ::testing::ValuesIn(usable_impls("kv_write")),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace nibble::test
