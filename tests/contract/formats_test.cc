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
#include "formats/split_format.h"
#include "formats/table_format.h"
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

// The index of the scale of an element.
std::int64_t scale_index(const Scheme& scheme, const Matrix& m, std::int64_t row,
                         std::int64_t col) {
  switch (scheme.granularity) {
    case Granularity::kTensor:
      return 0;
    case Granularity::kChannel:
      return row;
    case Granularity::kGroup:
      return row * (m.cols / scheme.group) + col / scheme.group;
    case Granularity::kBlock:
      break;
  }
  return row / scheme.block_rows * ((m.cols + scheme.group - 1) / scheme.group) +
         col / scheme.group;
}

struct GroupRange {
  double lo = 0, hi = 0;
};

// Of the weights that share the scale of element (row, col), and 0.
GroupRange range_of(const Scheme& scheme, const Matrix& m, std::int64_t row, std::int64_t col) {
  GroupRange range;
  const bool wide =
      scheme.granularity == Granularity::kTensor || scheme.granularity == Granularity::kBlock;
  for (std::int64_t r = wide ? 0 : row; r < (wide ? m.rows : row + 1); ++r) {
    for (std::int64_t c = 0; c < m.cols; ++c) {
      if (scale_index(scheme, m, r, c) != scale_index(scheme, m, row, col)) continue;
      range.lo = std::min(range.lo, double{m.w[static_cast<std::size_t>(r * m.cols + c)]});
      range.hi = std::max(range.hi, double{m.w[static_cast<std::size_t>(r * m.cols + c)]});
    }
  }
  return range;
}

// Largest error that rounding to nearest may leave in element (row, col): half a step, the rounding
// of the scale over the whole range of codes, and the least scale that its type can say.
double error_bound(const WeightDescriptor& d, const Matrix& m, std::int64_t row, std::int64_t col) {
  const double w = std::abs(m.w[static_cast<std::size_t>(row * m.cols + col)]);
  if (d.element.kind == ElementKind::kFloat) {
    return w * test::unit_roundoff(d.element.float_type) + least_positive(d.element.float_type);
  }
  const GroupRange range = range_of(d.scheme, m, row, col);
  double steps = std::ldexp(1, d.element.bits) - 1;
  double span = d.scheme.symmetric ? 2 * std::max(-range.lo, range.hi) : range.hi - range.lo;
  if (d.scheme.rule == ScaleRule::kStrict) steps -= 1;
  if (d.scheme.rule == ScaleRule::kFull) span *= 2;  // the largest magnitude may lose a whole step
  const double u = test::unit_roundoff(d.scheme.scale_type);
  return span / steps * (0.5 + steps * u) * (1 + u) + steps * least_positive(d.scheme.scale_type) +
         w * test::unit_roundoff(DType::kF32) * 2;
}

// What scales are made from: the largest and the mean magnitude of each group.
struct Groups {
  std::vector<double> absmax, mean;
};

Groups groups_of(const Scheme& scheme, const Matrix& m, std::size_t scales) {
  Groups groups{std::vector<double>(scales), std::vector<double>(scales)};
  std::vector<double> counts(scales);
  for (std::int64_t i = 0; i < m.rows * m.cols; ++i) {
    const double size = std::abs(double{m.w[static_cast<std::size_t>(i)]});
    const auto at = static_cast<std::size_t>(scale_index(scheme, m, i / m.cols, i % m.cols));
    groups.absmax[at] = std::max(groups.absmax[at], size);
    groups.mean[at] += size;
    counts[at] += 1;
  }
  for (std::size_t i = 0; i < scales; ++i) groups.mean[i] /= counts[i];
  return groups;
}

// Whether `scale` is what the rule makes of a group whose magnitudes end at `absmax`, with elements
// that end at `top`; `step` is the absolute error that a second level may add.
bool scale_follows_rule(const Scheme& scheme, double scale, double absmax, double mean, double top,
                        double step) {
  const double exact = absmax / top;
  const auto near = [&](double wanted, double u) {
    return std::abs(scale - wanted) <= wanted * u + step;
  };
  switch (scheme.rule) {
    case ScaleRule::kFloor:
      return scale == std::exp2(std::floor(std::log2(absmax)) - std::floor(std::log2(top)));
    case ScaleRule::kCeil:
      return scale >= exact && scale < 2 * exact;
    case ScaleRule::kLeastError:
      return scale > exact / 2 && scale < 2 * exact;
    case ScaleRule::kFourOverSix:
      return near(exact, 1.0 / 16) || near(exact * 1.5, 1.0 / 16);
    case ScaleRule::kMean:
      return near(mean, test::unit_roundoff(scheme.scale_type));
    case ScaleRule::kStrict:
    case ScaleRule::kFull:
      return false;  // of integers
    case ScaleRule::kAbsmax:
      break;
  }
  if (scheme.second_level == SecondLevel::kTensor) return near(exact, 1.0 / 16);
  if (scheme.second_level == SecondLevel::kDynamic) return near(exact, 0);
  return near(exact, test::unit_roundoff(scheme.scale_type));
}

// The error that a second level adds to scales, whatever their size.
double second_level_step(const Scheme& scheme, const Groups& groups, double top) {
  double largest = 0, sum = 0;
  for (const double absmax : groups.absmax) {
    largest = std::max(largest, absmax / top);
    sum += absmax / top;
  }
  if (scheme.second_level == SecondLevel::kTensor) return largest / 256 * 0x1p-9;
  if (scheme.second_level == SecondLevel::kNone) return least_positive(scheme.scale_type);
  const double mean = sum / static_cast<double>(groups.absmax.size());
  double spread = 0;
  for (const double absmax : groups.absmax) {
    spread = std::max(spread, std::abs(absmax / top - mean));
  }
  return spread * 0.9 / 64 / 2 * 1.001 + largest * 1e-6;  // half a step of the map's last decade
}

// The values of the codes of an element under scale `at`.
std::vector<float> levels_of(const QuantTensor& t, std::size_t at) {
  const WeightDescriptor& descriptor = t.format->descriptor();
  if (descriptor.element.kind != ElementKind::kFitted) {
    const std::span<const float> values = table_of(*t.format).values();
    return {values.begin(), values.end()};
  }
  const Tensor& tables = t.planes.back();
  std::vector<float> values(static_cast<std::size_t>(tables.dim(1)));
  const std::int64_t table = descriptor.scheme.own_tables ? static_cast<std::int64_t>(at) : 0;
  to_float(tables, table * tables.dim(1), tables.dim(1), values.data());
  return values;
}

// Where the scales of a format bring the largest magnitude to.
double top_of(const Format& format) {
  const bool fitted = format.descriptor().element.kind == ElementKind::kFitted;
  return fitted ? 1 : double{table_of(format).max()};
}

// Why element `index` of a table format is not the value nearest to its weight, or its scale not
// what the rule says.
std::string check_table_element(const QuantTensor& t, std::span<const float> scales,
                                const Groups& groups, const Matrix& m, std::int64_t index,
                                float decoded, double step) {
  const Scheme& scheme = t.format->descriptor().scheme;
  const auto at = static_cast<std::size_t>(scale_index(scheme, m, index / m.cols, index % m.cols));
  const double scale = double{scales[at]};
  const double absmax = groups.absmax[at];
  const bool tiny = scheme.scale_type == DType::kF8E8M0 && absmax < 0x1p-100;
  if (absmax > 0 && !tiny &&
      !scale_follows_rule(scheme, scale, absmax, groups.mean[at], top_of(*t.format), step)) {
    return fmt::format("a scale of {} for magnitudes up to {}", scale, absmax);
  }
  const double w = double{m.w[static_cast<std::size_t>(index)]};
  double least = std::numeric_limits<double>::infinity();
  for (const float value : levels_of(t, at)) {
    if (std::isfinite(value)) least = std::min(least, std::abs(double{value} * scale - w));
  }
  const double slack = std::max(std::abs(w), std::abs(double{decoded})) * 0x1p-21 + 0x1p-149;
  if (std::abs(double{decoded} - w) <= least + slack) return "";
  return fmt::format("{} became {} under a scale of {}", w, decoded, scale);
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

// The tensor once more from decoded values, under the scales that it has.
QuantTensor encode_again(const Format& format, const QuantTensor& t, const Matrix& m,
                         const std::vector<float>& decoded) {
  if (format.is_float()) return format.encode(decoded.data(), m.rows, m.cols);
  const ElementKind kind = format.descriptor().element.kind;
  if (kind == ElementKind::kFitted || kind == ElementKind::kIntSplit) return t;  // none has
  if (!format.is_affine()) return encode_under_scales(t, decoded.data());
  return affine_encode(t.format, decoded.data(), m.rows, m.cols, affine_params_of(t));
}

// Columns that stay in 16 bits as they read back, and the rest of the matrix, where they are zeros.
struct Split {
  Matrix rest;
  std::vector<std::int32_t> columns;

  Split(const QuantTensor& t, const Matrix& m) : rest(m) {
    if (t.format->descriptor().element.kind != ElementKind::kIntSplit) return;
    columns = outlier_columns(t);
    for (std::int64_t row = 0; row < m.rows; ++row) {
      for (const std::int32_t column : columns) {
        rest.w[static_cast<std::size_t>(row * m.cols + column)] = 0;
      }
    }
  }
  double bound(const WeightDescriptor& d, const Matrix& m, std::int64_t row,
               std::int64_t col) const {
    if (std::ranges::find(columns, col) == columns.end()) return error_bound(d, rest, row, col);
    const DType type = d.scheme.scale_type == DType::kBF16 ? DType::kBF16 : DType::kF16;
    const double w = std::abs(m.w[static_cast<std::size_t>(row * m.cols + col)]);
    return w * test::unit_roundoff(type) + least_positive(type);
  }
};

// Why the format breaks its promises on this matrix, or "".
std::string check_format(const Format& format, const Matrix& m) {
  const QuantTensor t = format.encode(m.w.data(), m.rows, m.cols);
  validate(t);
  const WeightDescriptor& descriptor = format.descriptor();
  const bool split = descriptor.element.kind == ElementKind::kIntSplit;
  const bool table = !format.is_float() && !format.is_affine() && !split;
  const Split parts(t, m);
  const std::vector<float> scales = table ? table_scales_of(t) : std::vector<float>();
  const Groups groups = table ? groups_of(descriptor.scheme, m, scales.size()) : Groups{};
  const double step = table ? second_level_step(descriptor.scheme, groups, top_of(*t.format)) : 0;
  const bool has_zero = !table || std::ranges::count(levels_of(t, 0), 0.0f) > 0;
  std::vector<float> decoded(m.w.size());
  for (std::int64_t row = 0; row < m.rows; ++row) {
    float* whole = decoded.data() + row * m.cols;
    format.decode(t, row, 0, m.cols, whole);
    for (std::int64_t col = 0; col < m.cols; ++col) {
      const float w = m.w[static_cast<std::size_t>(row * m.cols + col)];
      std::string reason;
      if (table) {
        reason = check_table_element(t, scales, groups, m, row * m.cols + col, whole[col], step);
      } else if (!(std::abs(double{whole[col]} - double{w}) <=
                   parts.bound(descriptor, m, row, col))) {
        reason = fmt::format("{} became {}", w, whole[col]);
      }
      if (!reason.empty()) {
        return fmt::format("{} {}x{}: [{}, {}] {}", m.name, m.rows, m.cols, row, col, reason);
      }
      if (w == 0 && whole[col] != 0 && has_zero && !descriptor.scheme.own_tables) {
        return "zero is not exact";
      }
    }
    const std::string reason = check_offsets(format, t, row, whole);
    if (!reason.empty()) return reason;
  }
  // Decoded values are fixed points: coded again with the same scales they give the same planes.
  if (!same_planes(t, encode_again(format, t, m, decoded))) {
    return "decoded values are no fixed points";
  }
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
    for (const std::string granularity :
         {"tensor", "channel", "g5", "g16", "g24", "g96", "g128", "b2x24"}) {
      for (const std::string symmetry : {"sym", "asym", "sym_strict", "sym_full"}) {
        for (const std::string scale : {"sf16", "sbf16", "sf32"}) {
          formats.push_back(parse_weight_format(
              fmt::format("int{}_{}_{}_{}", bits, granularity, symmetry, scale)));
        }
      }
    }
  }
  return formats;
}

// Every kind of element under every kind of scale that it can have.
std::vector<FormatPtr> table_grid() {
  std::vector<FormatPtr> formats;
  for (const char* element :
       {"fp8_e4m3",      "fp8_e4m3ieee", "fp8_e4m3fnuz", "fp8_e4m3all", "fp8_e5m2",
        "fp8_e5m2fnuz",  "fp8_e3m4",     "fp8_e2m5",     "fp6_e2m3",    "fp6_e3m2",
        "fp6_e4m1",      "fp4_e2m1",     "fp4_e1m2",     "fp4_e3m0",    "fp8_e4m3allb7.25",
        "fp4_e2m1b-3.5", "nf2",          "nf3",          "nf4",         "bnb4",
        "fixed8",        "ternary",      "binary",       "linear8",     "dynamic8"}) {
    for (const char* scheme : {"tensor", "channel_sf16", "g5_sbf16", "g16_se8m0", "g24_se8m0_ceil",
                               "g32_se8m0_best", "g16_se4m3", "g64_sdq8", "b2x24"}) {
      formats.push_back(parse_weight_format(fmt::format("{}_{}", element, scheme)));
    }
  }
  for (const char* name :
       {"fp4_e2m1_g16_se4m3_4over6", "lloyd4_g16_sf16", "lloyd2_channel_own", "lloyd3_g24_sdq8",
        "lloyd5_b2x24", "lloyd8_tensor", "quantile5_tensor", "quantile3_g16_sbf16_own",
        "int8_channel_sym_x2", "int4_g16_asym_sbf16_x1", "int3_tensor_sym_strict_sf32_x5"}) {
    formats.push_back(parse_weight_format(name));
  }
  return formats;
}

std::vector<std::int64_t> columns_for(const Format& format) {
  const Scheme& scheme = format.descriptor().scheme;
  if (!format.is_float() && scheme.granularity == Granularity::kGroup) {
    return {scheme.group, 3 * scheme.group};
  }
  std::vector<std::int64_t> columns = {1, 2, 31, 32, 33, 127};
  std::erase_if(columns, [&](std::int64_t cols) { return cols < scheme.outliers; });
  return columns;
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

TEST(FormatContract, TableGridKeepsItsPromises) {
  for (const FormatPtr& format : table_grid()) {
    expect_promises_kept(*format, columns_for(*format));
  }
}

// All formats that the tests walk.
std::vector<FormatPtr> grid() {
  std::vector<FormatPtr> formats = affine_grid();
  const std::vector<FormatPtr> tables = table_grid();
  formats.insert(formats.end(), tables.begin(), tables.end());
  return formats;
}

TEST(FormatContract, NamesRoundTripThroughTheGrammar) {
  std::vector<FormatPtr> formats = grid();
  for (const char* name : {"f32", "f16", "bf16"}) formats.push_back(parse_weight_format(name));
  for (const FormatPtr& format : formats) {
    const FormatPtr again = parse_weight_format(format->name());
    EXPECT_EQ(again->name(), format->name());
    EXPECT_TRUE(again->descriptor() == format->descriptor()) << format->name();
  }
}

TEST(FormatContract, NanAndInfinityAreCorrupt) {
  std::vector<FormatPtr> formats = grid();
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
  EXPECT_DOUBLE_EQ(bits("fp8_e4m3_channel", 256), 8 + 32.0 / 256);
  EXPECT_DOUBLE_EQ(bits("mxfp8", 256), 8.25);
  EXPECT_DOUBLE_EQ(bits("mxfp6_e2m3", 256), 6.25);
  EXPECT_DOUBLE_EQ(bits("mxfp4", 256), 4.25);
  EXPECT_DOUBLE_EQ(bits("mxint8", 256), 8.25);
  EXPECT_DOUBLE_EQ(bits("nvfp4", 256), 4.5 + 32.0 / (64 * 256));
  EXPECT_DOUBLE_EQ(bits("nf4", 256), 4.5);
  // 256 scales of 8 bits in one block of 256, its scale, and the mean.
  EXPECT_DOUBLE_EQ(bits("nf4_dq", 256), 4 + 8.0 / 64 + 64.0 / (64 * 256));
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
  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                     const Codec& codec) const override {
    return inner_->encode(w, rows, cols, codec);
  }
  void decode(const QuantTensor& t, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out, const SpanKernels&) const override {
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

// The tensor with each scale replaced by its neighbour's.
QuantTensor with_rotated_scales(const QuantTensor& t) {
  QuantTensor moved = t;
  const Tensor& scales = t.planes[1];
  std::vector<std::byte> bytes(scales.bytes().begin(), scales.bytes().end());
  std::ranges::rotate(bytes,
                      bytes.begin() + static_cast<std::ptrdiff_t>(dtype_size(scales.dtype())));
  const auto owner = std::make_shared<std::vector<std::byte>>(std::move(bytes));
  moved.planes[1] = Tensor::view(scales.dtype(), scales.shape(), *owner, owner);
  return moved;
}

std::vector<std::pair<std::string, Mutant::Decode>> affine_mutants() {
  using I = std::int64_t;
  return {
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
  };
}

std::vector<std::pair<std::string, Mutant::Decode>> table_mutants() {
  using I = std::int64_t;
  return {
      {"rotated scales", [](const Format& f, const QuantTensor& t, I row, I begin, I n,
                            float* out) { f.decode(with_rotated_scales(t), row, begin, n, out); }},
      {"doubled",
       [](const Format& f, const QuantTensor& t, I row, I begin, I n, float* out) {
         f.decode(t, row, begin, n, out);
         for (I i = 0; i < n; ++i) out[i] *= 2;
       }},
      {"zero is lost",
       [](const Format& f, const QuantTensor& t, I row, I begin, I n, float* out) {
         f.decode(t, row, begin, n, out);
         for (I i = 0; i < n; ++i) out[i] += 1e-30f;
       }},
  };
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
  // Groups of unlike size, so that a scale in the wrong place shows.
  Matrix m = make_matrix(distributions()[0], 4, 64);
  for (std::size_t i = 0; i < m.w.size(); ++i) {
    m.w[i] *= static_cast<float>(1 + i / 16) * (i / 16 % 2 == 0 ? 1.0f : 0.1f);
  }
  for (const char* inner : {"int4_g16_asym", "nf4_g16", "fp4_e2m1_g16_se8m0", "nf4_g16_sdq8",
                            "fp4_e2m1_g16_se4m3_4over6"}) {
    const FormatPtr format = parse_weight_format(inner);
    auto all = mutants();
    const auto more = format->is_affine() ? affine_mutants() : table_mutants();
    all.insert(all.end(), more.begin(), more.end());
    for (const auto& [name, decode] : all) {
      const std::string verdict = check_format(Mutant(format, decode), m);
      EXPECT_EQ(verdict.empty(), name == "sound") << inner << ", " << name << ": " << verdict;
    }
  }
}

// An encoder that does not use its scales well is found too.
TEST(FormatContract, CheckerRejectsPoorEncoders) {
  class Halved : public Mutant {
   public:
    using Mutant::Mutant;
    QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                       const Codec& codec) const override {
      std::vector<float> half(w, w + rows * cols);
      for (float& v : half) v /= 2;
      return encode_under_scales(Mutant::encode(half.data(), rows, cols, codec), w);
    }
  };
  const Matrix m = make_matrix(distributions()[0], 4, 64);
  for (const char* inner : {"nf4_g16", "mxfp4", "mxfp8", "nvfp4", "fp8"}) {
    const Halved format(parse_weight_format(inner), mutants()[0].second);
    EXPECT_NE(check_format(format, m), "") << inner;
  }
}

}  // namespace
}  // namespace nibble
