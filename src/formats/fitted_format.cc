// Codes into tables that are fitted to the matrix: w = table[code] * scale, on planes
//
//   codes    I32 [rows, ceil(cols * bits / 32)]   the bit stream of affine.h
//   scales, block_scales, mean                    as of other tables (table_format.h), by the
//                                                 largest magnitude
//   tables   F16 [tables, 2^bits]                 ascending, of w / scale; one for the matrix, or
//                                                 one for each scale, in their order (own_tables)
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/half.h"
#include "formats/affine.h"
#include "formats/fit_levels.h"
#include "formats/group_layout.h"
#include "formats/table_format.h"
#include "formats/table_scales.h"

namespace nibble {
namespace {

// Ends at 1, as all tables here do.
const CodeTable& unit_table() {
  static const CodeTable table = table_of(Codebook::kBinary);
  return table;
}

CodeTable code_table(std::span<const float> levels) {
  return CodeTable({levels.begin(), levels.end()}, TieRule::kSmallerValue, /*signed_zero=*/false);
}

class FittedFormat : public Format {
 public:
  explicit FittedFormat(const WeightDescriptor& descriptor) : descriptor_(descriptor) {}

  std::string name() const override {
    return element_name(descriptor_.element) + granularity_suffix(descriptor_.scheme) +
           scale_suffix(descriptor_.scheme) + (descriptor_.scheme.own_tables ? "_own" : "");
  }
  const WeightDescriptor& descriptor() const override { return descriptor_; }

  std::string why_not(std::int64_t rows, std::int64_t cols) const override {
    return why_no_groups(descriptor_.scheme, rows, cols);
  }

  std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const override {
    std::vector<PlaneSpec> specs = scale_planes(descriptor_.scheme, rows, cols);
    const std::int64_t tables = descriptor_.scheme.own_tables ? element_count(specs[0].shape) : 1;
    const int bits = descriptor_.element.bits;
    specs.insert(specs.begin(), {"codes", DType::kI32, {rows, words_per_row(bits, cols)}});
    specs.push_back({"tables", DType::kF16, {tables, std::int64_t{1} << bits}});
    return specs;
  }

  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                     const Codec& codec) const override;
  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out, const SpanKernels& spans) const override;

 private:
  std::size_t levels() const { return std::size_t{1} << descriptor_.element.bits; }
  std::vector<float> fit(std::vector<WeightedValue> values) const {
    std::vector<float> found = descriptor_.element.fit == Fit::kLloydMax
                                   ? lloyd_max_levels(std::move(values), levels())
                                   : quantile_levels(std::move(values), levels());
    for (float& level : found) level = to_float(to_f16(level));
    return found;
  }
  std::vector<float> shared_table(const float* w, const GroupLayout& layout, std::int64_t rows,
                                  const std::vector<float>& scales, const Codec& codec) const;
  void encode_own(const float* w, const GroupLayout& layout, const std::vector<float>& scales,
                  QuantTensor& result, const Codec& codec) const;

  WeightDescriptor descriptor_;
};

// The error of a value counts by the square of its scale and by what its column meets; quantiles
// are shares of the weights themselves.
class ErrorWeights {
 public:
  ErrorWeights(const Element& element, float scale, const Codec& codec)
      : of_scale_(element.fit == Fit::kQuantiles ? 1 : double{scale} * double{scale}) {
    if (element.fit != Fit::kQuantiles) importance_ = codec.importance;
  }

  double at(std::int64_t col) const {
    if (importance_.empty()) return of_scale_;
    return of_scale_ * double{importance_[static_cast<std::size_t>(col)]};
  }

 private:
  double of_scale_;
  std::span<const float> importance_;
};

float normalized(float w, float scale) {
  return scale > 0 ? std::clamp(w / scale, -1.0f, 1.0f) : 0;
}

// By a histogram, fine beside the least distance of 256 levels.
std::vector<float> FittedFormat::shared_table(const float* w, const GroupLayout& layout,
                                              std::int64_t rows, const std::vector<float>& scales,
                                              const Codec& codec) const {
  constexpr std::int64_t kBins = std::int64_t{1} << 17;
  std::vector<double> weights(static_cast<std::size_t>(kBins) + 1);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t g = 0; g < layout.per_row; ++g) {
      const float scale = scales[static_cast<std::size_t>(layout.first(row) + g)];
      const ErrorWeights by(descriptor_.element, scale, codec);
      const std::int64_t end = std::min(layout.cols, (g + 1) * layout.length);
      for (std::int64_t col = g * layout.length; col < end; ++col) {
        const double value = double{normalized(w[row * layout.cols + col], scale)};
        weights[static_cast<std::size_t>((value + 1) * (kBins / 2) + 0.5)] += by.at(col);
      }
    }
  }
  std::vector<WeightedValue> values;
  for (std::size_t bin = 0; bin < weights.size(); ++bin) {
    if (weights[bin] == 0) continue;
    const double value = static_cast<double>(bin) / (kBins / 2) - 1;
    values.push_back({static_cast<float>(value), weights[bin]});
  }
  return fit(std::move(values));
}

void FittedFormat::encode_own(const float* w, const GroupLayout& layout,
                              const std::vector<float>& scales, QuantTensor& result,
                              const Codec& codec) const {
  std::vector<float> tables(scales.size() * levels());
  encode_rows(
      layout, result.rows, descriptor_.element.bits, result.planes[0].mutable_data<std::uint32_t>(),
      codec,
      [&](std::int64_t row, std::int64_t first, std::int64_t groups, std::int64_t length,
          std::int64_t col, std::uint8_t* codes) {
        for (std::int64_t g = 0; g < groups; ++g, col += length, codes += length) {
          const auto at = static_cast<std::size_t>(layout.first(row) + first + g);
          const float* from = w + row * layout.cols + col;
          const ErrorWeights by(descriptor_.element, scales[at], codec);
          std::vector<WeightedValue> values(static_cast<std::size_t>(length));
          for (std::int64_t i = 0; i < length; ++i) {
            values[static_cast<std::size_t>(i)] = {normalized(from[i], scales[at]), by.at(col + i)};
          }
          const std::vector<float> found = fit(std::move(values));
          std::ranges::copy(found, tables.begin() + static_cast<std::ptrdiff_t>(at * levels()));
          round_to_table(code_table(found).view(), &scales[at], from, 1, length,
                         row * layout.cols + col, codec, codes);
        }
      });
  result.planes.push_back(
      from_float(tables.data(), DType::kF16,
                 {static_cast<std::int64_t>(scales.size()), static_cast<std::int64_t>(levels())}));
}

QuantTensor FittedFormat::encode(const float* w, std::int64_t rows, std::int64_t cols,
                                 const Codec& codec) const {
  require_fits(*this, rows, cols);
  const Scheme& scheme = descriptor_.scheme;
  const GroupLayout layout = layout_of(scheme, rows, cols);
  QuantTensor result{make_fitted_format(descriptor_), rows, cols, {}};
  const int bits = descriptor_.element.bits;
  result.planes.push_back(Tensor::allocate(DType::kI32, {rows, words_per_row(bits, cols)}));
  for (Tensor& plane : choose_scales(*this, unit_table(), w, rows, cols, codec).planes) {
    result.planes.push_back(std::move(plane));
  }
  std::vector<float> scales(static_cast<std::size_t>(result.planes[1].elements()));
  scales_at(result, 0, result.planes[1].elements(), scales.data(), *codec.spans);
  if (scheme.own_tables) {
    encode_own(w, layout, scales, result, codec);
    return result;
  }
  const std::vector<float> found = shared_table(w, layout, rows, scales, codec);
  const CodeTable table = code_table(found);
  encode_rows(layout, rows, bits, result.planes[0].mutable_data<std::uint32_t>(), codec,
              [&](std::int64_t row, std::int64_t group, std::int64_t groups, std::int64_t length,
                  std::int64_t col, std::uint8_t* codes) {
                const std::int64_t place = row * cols + col;
                round_to_table(table.view(), scales.data() + layout.first(row) + group, w + place,
                               groups, length, place, codec, codes);
              });
  result.planes.push_back(
      from_float(found.data(), DType::kF16, {1, static_cast<std::int64_t>(found.size())}));
  return result;
}

void FittedFormat::decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin,
                          std::int64_t count, float* out, const SpanKernels& spans) const {
  const int bits = descriptor_.element.bits;
  const auto size = static_cast<std::int64_t>(levels());
  const GroupLayout layout = layout_of(descriptor_.scheme, tensor.rows, tensor.cols);
  float scales[kDecodedAtOnce];
  float values[256];
  TableView table;
  table.values = values;
  table.bits = bits;
  const Tensor& tables = tensor.planes.back();
  const bool own = descriptor_.scheme.own_tables;
  if (!own) to_float(tables, 0, size, values);
  decode_row(
      layout, tensor.planes[0], bits, row, begin, count, spans,
      [&](std::int64_t group, std::int64_t groups, std::int64_t length, const std::uint8_t* codes) {
        const std::int64_t first = layout.first(row) + group;
        scales_at(tensor, first, groups, scales, spans);
        for (std::int64_t g = 0; own && g < groups; ++g) {
          to_float(tables, (first + g) * size, size, values);
          spans.table_values(table, scales + g, codes + g * length, 1, length, out + g * length);
        }
        if (!own) spans.table_values(table, scales, codes, groups, length, out);
        out += groups * length;
      });
}

}  // namespace

FormatPtr make_fitted_format(const WeightDescriptor& descriptor) {
  const Scheme& scheme = descriptor.scheme;
  const int bits = descriptor.element.bits;
  if (bits < 2 || bits > 8) {
    fail(ErrorKind::kUnsupported, "fitted tables of {} bits: 2 to 8 are supported", bits);
  }
  if (scheme.rule != ScaleRule::kAbsmax) {
    fail(ErrorKind::kUnsupported, "fitted tables have scales by the largest magnitude");
  }
  const bool in_a_row =
      scheme.granularity == Granularity::kChannel || scheme.granularity == Granularity::kGroup;
  if (scheme.own_tables && !in_a_row) {
    fail(ErrorKind::kUnsupported, "tables of their own are for rows and groups of them");
  }
  if (const std::string reason = why_no_scales(unit_table(), scheme); !reason.empty()) {
    fail(ErrorKind::kUnsupported, "fitted tables: {}", reason);
  }
  return std::make_shared<FittedFormat>(descriptor);
}

}  // namespace nibble
