// Every format keeps the promises of formats/format.h, and the checker notices when one does not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>

#include "formats/affine.h"
#include "formats/registry.h"
#include "support/test_data.h"
#include "support/tolerance.h"

namespace nibble {
namespace {

struct Matrix {
  std::string name;
  std::int64_t rows = 0, cols = 0;
  std::vector<float> w;
};

using Generator = std::function<float(std::mt19937&)>;

// Distributions that a quantizer meets, and those that break careless ones.
const std::vector<std::pair<std::string, Generator>>& distributions() {
  static const std::vector<std::pair<std::string, Generator>> all = {
      {"gaussian", [](std::mt19937& r) { return std::normal_distribution<float>(0, 0.02f)(r); }},
      {"heavy_tailed",
       [](std::mt19937& r) { return std::student_t_distribution<float>(3)(r) * 0.02f; }},
      {"positive", [](std::mt19937& r) { return std::uniform_real_distribution<float>(1, 2)(r); }},
      {"negative",
       [](std::mt19937& r) { return std::uniform_real_distribution<float>(-2, -1)(r); }},
      {"constant", [](std::mt19937&) { return 0.37f; }},
      {"zeros", [](std::mt19937&) { return 0.0f; }},
      {"tiny", [](std::mt19937& r) { return std::normal_distribution<float>(0, 1e-9f)(r); }},
      {"large", [](std::mt19937& r) { return std::normal_distribution<float>(0, 1e3f)(r); }},
      {"ties",
       [](std::mt19937& r) {
         return static_cast<float>(std::uniform_int_distribution<int>(-6, 9)(r)) * 0.5f;
       }},
  };
  return all;
}

Matrix make_matrix(const std::pair<std::string, Generator>& distribution, std::int64_t rows,
                   std::int64_t cols) {
  std::mt19937 random(static_cast<unsigned>(rows * 1000 + cols));
  Matrix m{distribution.first, rows, cols, {}};
  for (std::int64_t i = 0; i < rows * cols; ++i) m.w.push_back(distribution.second(random));
  if (m.w.size() > 2) m.w[1] = 0;  // zeros must stay exact among others
  return m;
}

double least_positive(DType type) {
  if (type == DType::kF16) return 0x1p-24;
  if (type == DType::kBF16) return 0x1p-133;
  return 0x1p-149;
}

// Largest error that rounding to nearest may leave in element (row, col): half a step, the rounding
// of the scale over the whole range of codes, and the least scale that its type can say.
double error_bound(const WeightDescriptor& d, const Matrix& m, std::int64_t row, std::int64_t col) {
  const double w = std::abs(m.w[static_cast<std::size_t>(row * m.cols + col)]);
  if (d.element.kind == ElementKind::kFloat) {
    return w * test::unit_roundoff(d.element.float_type) + least_positive(d.element.float_type);
  }
  const std::int64_t length = d.scheme.granularity == Granularity::kGroup ? d.scheme.group : m.cols;
  std::int64_t begin = row * m.cols + col / length * length;
  std::int64_t end = begin + length;
  if (d.scheme.granularity == Granularity::kTensor) begin = 0, end = m.rows * m.cols;
  double lo = 0, hi = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    lo = std::min(lo, double{m.w[static_cast<std::size_t>(i)]});
    hi = std::max(hi, double{m.w[static_cast<std::size_t>(i)]});
  }
  const double steps = std::ldexp(1, d.element.bits) - 1;
  const double span = d.scheme.symmetric ? 2 * std::max(-lo, hi) : hi - lo;
  const double u = test::unit_roundoff(d.scheme.scale_type);
  return span / steps * (0.5 + steps * u) * (1 + u) + steps * least_positive(d.scheme.scale_type) +
         w * test::unit_roundoff(DType::kF32) * 2;
}

// Decodes pieces of a row between sentinels and compares them with the whole row.
std::string check_offsets(const Format& format, const QuantTensor& t, std::int64_t row,
                          const float* whole) {
  constexpr float kSentinel = 1234.5f;
  for (const std::int64_t begin : {std::int64_t{0}, std::int64_t{1}, t.cols / 2, t.cols - 1}) {
    for (const std::int64_t count : {std::int64_t{1}, t.cols / 3, t.cols - begin}) {
      if (begin < 0 || count < 0 || begin + count > t.cols) continue;
      std::vector<float> out(static_cast<std::size_t>(count) + 2, kSentinel);
      format.decode(t, row, begin, count, out.data() + 1);
      if (out.front() != kSentinel || out.back() != kSentinel) return "writes outside its output";
      if (std::memcmp(out.data() + 1, whole + begin, static_cast<std::size_t>(count) * 4) != 0) {
        return fmt::format("decode at {} differs from the whole row", begin);
      }
    }
  }
  return "";
}

bool same_planes(const QuantTensor& a, const QuantTensor& b) {
  for (std::size_t i = 0; i < a.planes.size(); ++i) {
    if (!std::ranges::equal(a.planes[i].bytes(), b.planes[i].bytes())) return false;
  }
  return a.planes.size() == b.planes.size();
}

// Why the format breaks its promises on this matrix, or "".
std::string check_format(const Format& format, const Matrix& m) {
  const QuantTensor t = format.encode(m.w.data(), m.rows, m.cols);
  validate(t);
  std::vector<float> decoded(m.w.size());
  for (std::int64_t row = 0; row < m.rows; ++row) {
    float* whole = decoded.data() + row * m.cols;
    format.decode(t, row, 0, m.cols, whole);
    for (std::int64_t col = 0; col < m.cols; ++col) {
      const float w = m.w[static_cast<std::size_t>(row * m.cols + col)];
      const double error = std::abs(double{whole[col]} - double{w});
      if (!(error <= error_bound(format.descriptor(), m, row, col))) {
        return fmt::format("{} {}x{}: [{}, {}] {} became {}", m.name, m.rows, m.cols, row, col, w,
                           whole[col]);
      }
      if (w == 0 && whole[col] != 0) return "zero is not exact";
    }
    const std::string reason = check_offsets(format, t, row, whole);
    if (!reason.empty()) return reason;
  }
  // Decoded values are fixed points: coded again with the same scales they give the same planes.
  const QuantTensor again = format.is_float() ? format.encode(decoded.data(), m.rows, m.cols)
                                              : affine_encode(t.format, decoded.data(), m.rows,
                                                              m.cols, affine_params_of(t));
  if (!same_planes(t, again)) return "decoded values are no fixed points";
  return "";
}

void expect_promises_kept(const Format& format, std::span<const std::int64_t> columns) {
  for (const auto& distribution : distributions()) {
    for (const std::int64_t cols : columns) {
      const Matrix m = make_matrix(distribution, 3, cols);
      EXPECT_EQ(check_format(format, m), "") << format.name();
    }
  }
}

// Every descriptor that the tests walk: bits, symmetry, granularity (odd groups too), scale type.
std::vector<FormatPtr> affine_grid() {
  std::vector<FormatPtr> formats;
  for (int bits = 2; bits <= 8; ++bits) {
    for (const std::string granularity : {"tensor", "channel", "g5", "g16", "g24", "g96", "g128"}) {
      for (const std::string symmetry : {"sym", "asym"}) {
        for (const std::string scale : {"sf16", "sbf16", "sf32"}) {
          formats.push_back(parse_weight_format(
              fmt::format("int{}_{}_{}_{}", bits, granularity, symmetry, scale)));
        }
      }
    }
  }
  return formats;
}

std::vector<std::int64_t> columns_for(const Format& format) {
  const Scheme& scheme = format.descriptor().scheme;
  if (!format.is_float() && scheme.granularity == Granularity::kGroup) {
    return {scheme.group, 3 * scheme.group};
  }
  return {1, 2, 31, 32, 33, 127};
}

TEST(FormatContract, RegisteredFormatsKeepTheirPromises) {
  for (const FormatAlias& alias : format_aliases()) {
    const FormatPtr format = parse_model_format(alias.name).weights;
    ASSERT_NE(format, nullptr) << alias.name;
    expect_promises_kept(*format, columns_for(*format));
  }
}

TEST(FormatContract, AffineGridKeepsItsPromises) {
  for (const FormatPtr& format : affine_grid()) {
    expect_promises_kept(*format, columns_for(*format));
  }
}

TEST(FormatContract, NamesRoundTripThroughTheGrammar) {
  std::vector<FormatPtr> formats = affine_grid();
  for (const char* name : {"f32", "f16", "bf16"}) formats.push_back(parse_weight_format(name));
  for (const FormatPtr& format : formats) {
    const FormatPtr again = parse_weight_format(format->name());
    EXPECT_EQ(again->name(), format->name());
    EXPECT_TRUE(again->descriptor() == format->descriptor()) << format->name();
  }
}

TEST(FormatContract, NanAndInfinityAreCorrupt) {
  std::vector<FormatPtr> formats = affine_grid();
  for (const char* name : {"f32", "f16", "bf16"}) formats.push_back(parse_weight_format(name));
  for (const FormatPtr& format : formats) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
          -std::numeric_limits<float>::infinity()}) {
      Matrix m = make_matrix(distributions()[0], 2, columns_for(*format)[0] * 2);
      m.w[m.w.size() - 2] = bad;
      EXPECT_ERROR(format->encode(m.w.data(), m.rows, m.cols), ErrorKind::kCorrupt, "row 1");
    }
  }
}

TEST(FormatContract, BitsPerWeightCountsEveryPlane) {
  const auto bits = [](const char* name, std::int64_t cols) {
    return bits_per_weight(*parse_weight_format(name), 64, cols);
  };
  EXPECT_DOUBLE_EQ(bits("bf16", 256), 16);
  EXPECT_DOUBLE_EQ(bits("int4_g128_asym", 256), 4 + 24.0 / 128);
  EXPECT_DOUBLE_EQ(bits("int4_g128_sym", 256), 4 + 16.0 / 128);
  EXPECT_DOUBLE_EQ(bits("int3_channel_sym_sf32", 256), 3 + 32.0 / 256);
  EXPECT_DOUBLE_EQ(bits("int8_tensor_sym", 256), 8 + 16.0 / (64 * 256));
}

// A format with a broken decoder over a sound encoder.
class Mutant : public Format {
 public:
  using Decode = std::function<void(const Format& inner, const QuantTensor& t, std::int64_t row,
                                    std::int64_t begin, std::int64_t count, float* out)>;
  Mutant(FormatPtr inner, Decode decode) : inner_(std::move(inner)), decode_(std::move(decode)) {}

  std::string name() const override { return inner_->name(); }
  const WeightDescriptor& descriptor() const override { return inner_->descriptor(); }
  std::string why_not(std::int64_t rows, std::int64_t cols) const override {
    return inner_->why_not(rows, cols);
  }
  std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const override {
    return inner_->planes(rows, cols);
  }
  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols) const override {
    return inner_->encode(w, rows, cols);
  }
  void decode(const QuantTensor& t, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out) const override {
    decode_(*inner_, t, row, begin, count, out);
  }

 private:
  FormatPtr inner_;
  Decode decode_;
};

// The tensor with parameters taken from another group, by a rule on (row, group).
QuantTensor with_params_from(
    const QuantTensor& t,
    const std::function<std::int64_t(std::int64_t row, std::int64_t group)>& source) {
  const std::vector<AffineParams> params = affine_params_of(t);
  const std::int64_t groups = t.planes[1].dim(1);
  QuantTensor moved = t;
  moved.planes[1] = Tensor::allocate(DType::kF16, t.planes[1].shape());
  moved.planes[2] = Tensor::allocate(DType::kU8, t.planes[2].shape());
  for (std::int64_t i = 0; i < t.planes[1].elements(); ++i) {
    const AffineParams& p = params[static_cast<std::size_t>(source(i / groups, i % groups))];
    moved.planes[1].mutable_data<f16>()[i] = to_f16(p.scale);
    moved.planes[2].mutable_data<std::uint8_t>()[i] = static_cast<std::uint8_t>(p.zero);
  }
  return moved;
}

QuantTensor with_swapped_nibbles(const QuantTensor& t) {
  QuantTensor swapped = t;
  swapped.planes[0] = Tensor::allocate(DType::kI32, t.planes[0].shape());
  const auto* from = t.planes[0].data<std::uint32_t>();
  auto* to = swapped.planes[0].mutable_data<std::uint32_t>();
  for (std::int64_t i = 0; i < t.planes[0].elements(); ++i) {
    to[i] = ((from[i] & 0x0f0f0f0fu) << 4) | ((from[i] >> 4) & 0x0f0f0f0fu);
  }
  return swapped;
}

std::vector<std::pair<std::string, Mutant::Decode>> mutants() {
  using I = std::int64_t;
  return {
      {"sound", [](const Format& f, const QuantTensor& t, I row, I begin, I n,
                   float* out) { f.decode(t, row, begin, n, out); }},
      {"all zero",
       [](const Format&, const QuantTensor&, I, I, I n, float* out) { std::fill_n(out, n, 0.0f); }},
      {"sign flip",
       [](const Format& f, const QuantTensor& t, I row, I begin, I n, float* out) {
         f.decode(t, row, begin, n, out);
         for (I i = 0; i < n; ++i) out[i] = -out[i];
       }},
      {"next group's scale",
       [](const Format& f, const QuantTensor& t, I row, I begin, I n, float* out) {
         const I groups = t.planes[1].dim(1);
         const auto source = [&](I r, I g) { return r * groups + (g + 1) % groups; };
         f.decode(with_params_from(t, source), row, begin, n, out);
       }},
      {"transposed scales",
       [](const Format& f, const QuantTensor& t, I row, I begin, I n, float* out) {
         const auto source = [&](I r, I g) { return g * t.planes[1].dim(0) + r; };
         f.decode(with_params_from(t, source), row, begin, n, out);
       }},
      {"swapped nibbles",
       [](const Format& f, const QuantTensor& t, I row, I begin, I n, float* out) {
         f.decode(with_swapped_nibbles(t), row, begin, n, out);
       }},
      {"overrun",
       [](const Format& f, const QuantTensor& t, I row, I begin, I n, float* out) {
         f.decode(t, row, begin, n, out);
         if (n < t.cols) out[n] = 0;
       }},
      {"offset ignored", [](const Format& f, const QuantTensor& t, I row, I, I n,
                            float* out) { f.decode(t, row, 0, n, out); }},
  };
}

TEST(FormatContract, CheckerRejectsMutants) {
  const FormatPtr inner = parse_weight_format("int4_g16_asym");
  // Groups of unlike size, so that a scale in the wrong place shows.
  Matrix m = make_matrix(distributions()[0], 4, 64);
  for (std::size_t i = 0; i < m.w.size(); ++i) {
    m.w[i] *= static_cast<float>(1 + i / 16) * (i / 16 % 2 == 0 ? 1.0f : 0.1f);
  }
  for (const auto& [name, decode] : mutants()) {
    const std::string verdict = check_format(Mutant(inner, decode), m);
    EXPECT_EQ(verdict.empty(), name == "sound") << name << ": " << verdict;
  }
}

}  // namespace
}  // namespace nibble
