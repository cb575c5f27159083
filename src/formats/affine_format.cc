// Affine integers as a Format: planes, whole-matrix encoding and decoding.
#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "formats/affine.h"
#include "formats/families.h"
#include "formats/float_planes.h"
#include "formats/group_layout.h"
#include "formats/stochastic.h"

namespace nibble {
namespace {

class AffineFormat : public Format {
 public:
  explicit AffineFormat(const WeightDescriptor& descriptor) : descriptor_(descriptor) {}

  std::string name() const override;
  const WeightDescriptor& descriptor() const override { return descriptor_; }
  std::string why_not(std::int64_t rows, std::int64_t cols) const override;
  std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const override;
  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                     const Codec& codec) const override;
  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out, const SpanKernels& spans) const override;

 private:
  WeightDescriptor descriptor_;
};

// Scales and zero points of `count` groups from `first` on, counted over the whole matrix.
void params_at(const QuantTensor& tensor, std::int64_t first, std::int64_t count, float* scales,
               int* zeros, const SpanKernels& spans) {
  const WeightDescriptor& descriptor = tensor.format->descriptor();
  read_floats(tensor.planes[1], first, count, scales, spans);
  if (descriptor.scheme.symmetric) {
    std::fill_n(zeros, count, 1 << (descriptor.element.bits - 1));
    return;
  }
  const std::byte* stored = tensor.planes[2].bytes().data() + first;
  for (std::int64_t i = 0; i < count; ++i) zeros[i] = std::to_integer<int>(stored[i]);
}

std::string AffineFormat::name() const {
  const Scheme& scheme = descriptor_.scheme;
  std::string text = fmt::format("int{}", descriptor_.element.bits);
  text += granularity_suffix(scheme);
  text += scheme.symmetric ? "_sym" : "_asym";
  if (scheme.rule == ScaleRule::kStrict) text += "_strict";
  if (scheme.rule == ScaleRule::kFull) text += "_full";
  if (scheme.scale_type == DType::kBF16) text += "_sbf16";
  if (scheme.scale_type == DType::kF32) text += "_sf32";
  return text;
}

std::string AffineFormat::why_not(std::int64_t rows, std::int64_t cols) const {
  return why_no_groups(descriptor_.scheme, rows, cols);
}

std::vector<PlaneSpec> AffineFormat::planes(std::int64_t rows, std::int64_t cols) const {
  const Shape groups = group_shape(descriptor_.scheme, rows, cols);
  std::vector<PlaneSpec> specs = {
      {"codes", DType::kI32, {rows, words_per_row(descriptor_.element.bits, cols)}},
      {"scales", descriptor_.scheme.scale_type, groups}};
  if (!descriptor_.scheme.symmetric) specs.push_back({"zeros", DType::kU8, groups});
  return specs;
}

// The ranges of all groups; kCorrupt when some w is not finite.
struct Ranges {
  std::vector<float> lo;
  std::vector<float> hi;
};

Ranges ranges_of(const std::string& name, const GroupLayout& layout, const float* w,
                 std::int64_t rows, const Codec& codec) {
  const auto parts = static_cast<std::size_t>(rows * layout.per_row);
  Ranges ranges{std::vector<float>(parts), std::vector<float>(parts)};
  std::atomic<bool> finite = true;
  codec.for_rows(rows, layout.cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      layout.for_lengths(
          [&](std::int64_t group, std::int64_t groups, std::int64_t length, std::int64_t col) {
            const std::int64_t at = row * layout.per_row + group;
            if (!codec.spans->ranges(w + row * layout.cols + col, groups, length,
                                     ranges.lo.data() + at, ranges.hi.data() + at)) {
              finite = false;
            }
          });
    }
  });
  if (!finite) require_finite(name, w, rows, layout.cols);
  merge_rows(layout, rows, ranges.lo, [](float a, float b) { return std::min(a, b); });
  merge_rows(layout, rows, ranges.hi, [](float a, float b) { return std::max(a, b); });
  return ranges;
}

QuantTensor AffineFormat::encode(const float* w, std::int64_t rows, std::int64_t cols,
                                 const Codec& codec) const {
  require_fits(*this, rows, cols);
  const GroupLayout layout = layout_of(descriptor_.scheme, rows, cols);
  const Ranges ranges = ranges_of(name(), layout, w, rows, codec);
  std::vector<AffineParams> params(ranges.lo.size());
  for (std::size_t i = 0; i < params.size(); ++i) {
    params[i] = affine_params(descriptor_, ranges.lo[i], ranges.hi[i]);
  }
  return affine_encode(make_affine_format(descriptor_), w, rows, cols, params, codec);
}

void AffineFormat::decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin,
                          std::int64_t count, float* out, const SpanKernels& spans) const {
  const int bits = descriptor_.element.bits;
  const GroupLayout layout = layout_of(descriptor_.scheme, tensor.rows, tensor.cols);
  float scales[kDecodedAtOnce];
  int zeros[kDecodedAtOnce];
  decode_row(
      layout, tensor.planes[0], bits, row, begin, count, spans,
      [&](std::int64_t group, std::int64_t groups, std::int64_t length, const std::uint8_t* codes) {
        params_at(tensor, layout.first(row) + group, groups, scales, zeros, spans);
        spans.affine_values(scales, zeros, codes, groups, length, out);
        out += groups * length;
      });
}

}  // namespace

FormatPtr make_affine_format(const WeightDescriptor& descriptor) {
  return std::make_shared<AffineFormat>(descriptor);
}

QuantTensor affine_encode(const FormatPtr& format, const float* w, std::int64_t rows,
                          std::int64_t cols, std::span<const AffineParams> params,
                          const Codec& codec) {
  const WeightDescriptor& descriptor = format->descriptor();
  const Scheme& scheme = descriptor.scheme;
  const Shape groups = group_shape(scheme, rows, cols);
  NIBBLE_CHECK(format->why_not(rows, cols).empty());
  NIBBLE_CHECK(static_cast<std::int64_t>(params.size()) == element_count(groups));
  QuantTensor result{format, rows, cols, {}};
  for (const PlaneSpec& spec : format->planes(rows, cols)) {
    result.planes.push_back(Tensor::allocate(spec.dtype, spec.shape));
  }

  std::vector<float> scales(params.size());
  std::vector<int> zeros(params.size());
  for (std::size_t i = 0; i < params.size(); ++i) {
    scales[i] = params[i].scale;
    zeros[i] = params[i].zero;
  }
  write_floats(scales.data(), 0, static_cast<std::int64_t>(scales.size()), result.planes[1],
               *codec.spans);
  if (!scheme.symmetric) {
    std::ranges::transform(zeros, result.planes[2].mutable_data<std::uint8_t>(),
                           [](int zero) { return static_cast<std::uint8_t>(zero); });
  }

  const int bits = descriptor.element.bits;
  const GroupLayout layout = layout_of(scheme, rows, cols);
  auto* packed = result.planes[0].mutable_data<std::uint32_t>();
  encode_rows(layout, rows, bits, packed, codec,
              [&](std::int64_t row, std::int64_t group, std::int64_t count, std::int64_t length,
                  std::int64_t col, std::uint8_t* codes) {
                const std::int64_t at = layout.first(row) + group;
                const float* scale = scales.data() + at;
                const int* zero = zeros.data() + at;
                const float* from = w + row * cols + col;
                if (codec.rounding == Rounding::kStochastic) {
                  return stochastic_affine_codes(bits, scale, zero, from, count, length, codec.seed,
                                                 row * cols + col, codes);
                }
                codec.spans->affine_codes(bits, scale, zero, from, count, length, codes);
              });
  return result;
}

std::vector<AffineParams> affine_params_of(const QuantTensor& tensor) {
  const auto count = static_cast<std::size_t>(tensor.planes[1].elements());
  std::vector<float> scales(count);
  std::vector<int> zeros(count);
  params_at(tensor, 0, tensor.planes[1].elements(), scales.data(), zeros.data(), scalar_spans());
  std::vector<AffineParams> params(count);
  for (std::size_t i = 0; i < count; ++i) params[i] = {scales[i], zeros[i]};
  return params;
}

}  // namespace nibble
