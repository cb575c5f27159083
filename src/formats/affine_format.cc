// Affine integers as a Format: planes, whole-matrix encoding and decoding.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "formats/affine.h"
#include "formats/families.h"

namespace nibble {
namespace {

class AffineFormat : public Format {
 public:
  explicit AffineFormat(const WeightDescriptor& descriptor) : descriptor_(descriptor) {}

  std::string name() const override;
  const WeightDescriptor& descriptor() const override { return descriptor_; }
  std::string why_not(std::int64_t rows, std::int64_t cols) const override;
  std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const override;
  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols) const override;
  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out) const override;

 private:
  WeightDescriptor descriptor_;
};

// Parameters of group `index`, counted over the whole matrix.
AffineParams params_at(const QuantTensor& tensor, std::int64_t index) {
  const WeightDescriptor& descriptor = tensor.format->descriptor();
  AffineParams params;
  to_float(tensor.planes[1], index, 1, &params.scale);
  params.zero =
      descriptor.scheme.symmetric
          ? 1 << (descriptor.element.bits - 1)
          : std::to_integer<int>(tensor.planes[2].bytes()[static_cast<std::size_t>(index)]);
  return params;
}

std::string AffineFormat::name() const {
  const Scheme& scheme = descriptor_.scheme;
  std::string text = fmt::format("int{}", descriptor_.element.bits);
  text += granularity_suffix(scheme);
  text += scheme.symmetric ? "_sym" : "_asym";
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

QuantTensor AffineFormat::encode(const float* w, std::int64_t rows, std::int64_t cols) const {
  const std::string reason = why_not(rows, cols);
  if (!reason.empty()) fail(ErrorKind::kUsage, "{}: {}", name(), reason);
  require_finite(name(), w, rows, cols);
  const bool whole = descriptor_.scheme.granularity == Granularity::kTensor;
  const std::int64_t length = whole ? rows * cols : group_length(descriptor_.scheme, cols);
  std::vector<AffineParams> params;
  params.reserve(static_cast<std::size_t>(rows * cols / length));
  for (std::int64_t begin = 0; begin < rows * cols; begin += length) {
    float lo = 0;
    float hi = 0;
    for (std::int64_t i = begin; i < begin + length; ++i) {
      lo = std::min(lo, w[i]);
      hi = std::max(hi, w[i]);
    }
    params.push_back(affine_params(descriptor_, lo, hi));
  }
  return affine_encode(make_affine_format(descriptor_), w, rows, cols, params);
}

void AffineFormat::decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin,
                          std::int64_t count, float* out) const {
  const int bits = descriptor_.element.bits;
  const Scheme& scheme = descriptor_.scheme;
  const std::int64_t words = words_per_row(bits, tensor.cols);
  const std::byte* codes = tensor.planes[0].bytes().data() + row * words * 4;
  const std::int64_t length = group_length(scheme, tensor.cols);
  const std::int64_t first_group =
      scheme.granularity == Granularity::kTensor ? 0 : row * groups_per_row(scheme, tensor.cols);
  constexpr std::int64_t kChunk = 256;
  std::uint8_t buffer[kChunk];
  const std::int64_t end = begin + count;
  while (begin < end) {
    const std::int64_t group = begin / length;
    const std::int64_t group_end = std::min(end, (group + 1) * length);
    const AffineParams params = params_at(tensor, first_group + group);
    while (begin < group_end) {
      const std::int64_t n = std::min(kChunk, group_end - begin);
      unpack_codes(codes, bits, begin, n, buffer);
      for (std::int64_t i = 0; i < n; ++i) {
        *out++ = params.scale * static_cast<float>(buffer[i] - params.zero);
      }
      begin += n;
    }
  }
}

}  // namespace

FormatPtr make_affine_format(const WeightDescriptor& descriptor) {
  return std::make_shared<AffineFormat>(descriptor);
}

QuantTensor affine_encode(const FormatPtr& format, const float* w, std::int64_t rows,
                          std::int64_t cols, std::span<const AffineParams> params) {
  const WeightDescriptor& descriptor = format->descriptor();
  const Scheme& scheme = descriptor.scheme;
  const Shape groups = group_shape(scheme, rows, cols);
  NIBBLE_CHECK(format->why_not(rows, cols).empty());
  NIBBLE_CHECK(static_cast<std::int64_t>(params.size()) == element_count(groups));
  QuantTensor result{format, rows, cols, {}};
  for (const PlaneSpec& spec : format->planes(rows, cols)) {
    result.planes.push_back(Tensor::allocate(spec.dtype, spec.shape));
  }

  std::vector<float> scales;
  scales.reserve(params.size());
  for (const AffineParams& p : params) scales.push_back(p.scale);
  result.planes[1] = from_float(scales.data(), scheme.scale_type, groups);
  if (!scheme.symmetric) {
    auto* zeros = result.planes[2].mutable_data<std::uint8_t>();
    for (std::size_t i = 0; i < params.size(); ++i) {
      zeros[i] = static_cast<std::uint8_t>(params[i].zero);
    }
  }

  const std::int64_t length = group_length(scheme, cols);
  const std::int64_t words = words_per_row(descriptor.element.bits, cols);
  auto* packed = result.planes[0].mutable_data<std::uint32_t>();
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(cols));
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < cols; ++col) {
      const std::int64_t index =
          scheme.granularity == Granularity::kTensor ? 0 : row * groups.back() + col / length;
      codes[static_cast<std::size_t>(col)] = static_cast<std::uint8_t>(
          affine_code(descriptor, params[static_cast<std::size_t>(index)], w[row * cols + col]));
    }
    pack_codes(codes, descriptor.element.bits, packed + row * words);
  }
  return result;
}

std::vector<AffineParams> affine_params_of(const QuantTensor& tensor) {
  std::vector<AffineParams> params;
  const std::int64_t count = tensor.planes[1].elements();
  params.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) params.push_back(params_at(tensor, i));
  return params;
}

}  // namespace nibble
