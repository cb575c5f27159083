#include "formats/split_format.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "formats/families.h"

namespace nibble {
namespace {

// As they are stored: planes need no alignment.
std::vector<std::int32_t> stored_columns(const QuantTensor& tensor) {
  const Tensor& index = tensor.planes[tensor.planes.size() - 2];
  std::vector<std::int32_t> columns(static_cast<std::size_t>(index.elements()));
  std::memcpy(columns.data(), index.bytes().data(), index.byte_size());
  return columns;
}

class SplitFormat : public Format {
 public:
  explicit SplitFormat(const WeightDescriptor& descriptor) : descriptor_(descriptor) {
    WeightDescriptor integers = descriptor;
    integers.element.kind = ElementKind::kInt;
    integers.scheme.outliers = 0;
    integers_ = make_affine_format(integers);
  }

  std::string name() const override {
    return integers_->name() + fmt::format("_x{}", descriptor_.scheme.outliers);
  }
  const WeightDescriptor& descriptor() const override { return descriptor_; }

  std::string why_not(std::int64_t rows, std::int64_t cols) const override {
    if (descriptor_.scheme.outliers > cols) {
      return fmt::format("{} of {} columns", descriptor_.scheme.outliers, cols);
    }
    return integers_->why_not(rows, cols);
  }

  std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const override {
    std::vector<PlaneSpec> specs = integers_->planes(rows, cols);
    specs.push_back({"outlier_columns", DType::kI32, {1, descriptor_.scheme.outliers}});
    specs.push_back({"outliers", value_type(), {rows, descriptor_.scheme.outliers}});
    return specs;
  }

  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                     const Codec& codec) const override;
  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out, const SpanKernels& spans) const override;

 private:
  DType value_type() const {
    return descriptor_.scheme.scale_type == DType::kBF16 ? DType::kBF16 : DType::kF16;
  }

  WeightDescriptor descriptor_;
  FormatPtr integers_;
};

QuantTensor SplitFormat::encode(const float* w, std::int64_t rows, std::int64_t cols,
                                const Codec& codec) const {
  require_fits(*this, rows, cols);
  require_finite(name(), w, rows, cols);
  std::vector<std::int32_t> columns = columns_by_weight(w, rows, cols, codec.importance);
  columns.resize(static_cast<std::size_t>(descriptor_.scheme.outliers));
  std::ranges::sort(columns);
  std::vector<float> rest(w, w + rows * cols);
  std::vector<float> kept;
  kept.reserve(static_cast<std::size_t>(rows) * columns.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    for (const std::int32_t column : columns) {
      float& value = rest[static_cast<std::size_t>(row * cols + column)];
      kept.push_back(value);
      value = 0;
    }
  }
  QuantTensor result = integers_->encode(rest.data(), rows, cols, codec);
  result.format = make_split_format(descriptor_);
  Tensor index = Tensor::allocate(DType::kI32, {1, descriptor_.scheme.outliers});
  std::ranges::copy(columns, index.mutable_data<std::int32_t>());
  Tensor values = from_float(kept.data(), value_type(), {rows, descriptor_.scheme.outliers});
  std::vector<float> stored(kept.size());
  to_float(values, stored.data());
  if (!std::ranges::all_of(stored, [](float v) { return std::isfinite(v); })) {
    fail(ErrorKind::kUnsupported, "{}: weights of an outlier column are beyond {}; use sbf16",
         name(), to_string(value_type()));
  }
  result.planes.push_back(std::move(index));
  result.planes.push_back(std::move(values));
  return result;
}

void SplitFormat::decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin,
                         std::int64_t count, float* out, const SpanKernels& spans) const {
  integers_->decode(tensor, row, begin, count, out, spans);
  const std::vector<std::int32_t> columns = stored_columns(tensor);
  const auto kept = static_cast<std::int64_t>(columns.size());
  const auto first = std::ranges::lower_bound(columns, begin);
  for (auto at = first; at != columns.end() && *at >= begin && *at < begin + count; ++at) {
    to_float(tensor.planes.back(), row * kept + (at - columns.begin()), 1, out + (*at - begin));
  }
}

}  // namespace

FormatPtr make_split_format(const WeightDescriptor& descriptor) {
  constexpr std::int64_t kMost = 4096;
  if (descriptor.scheme.outliers < 1 || descriptor.scheme.outliers > kMost) {
    fail(ErrorKind::kUnsupported, "{} outlier columns: 1 to {} are supported",
         descriptor.scheme.outliers, kMost);
  }
  return std::make_shared<SplitFormat>(descriptor);
}

std::vector<std::int32_t> outlier_columns(const QuantTensor& tensor) {
  if (tensor.format->descriptor().element.kind != ElementKind::kIntSplit) {
    fail(ErrorKind::kUsage,
         "activations leave out the outlier columns of weights ('ow'), but {} has none; use a "
         "weight format with '_x<columns>'",
         tensor.format->name());
  }
  std::vector<std::int32_t> columns = stored_columns(tensor);
  std::int32_t least = 0;
  for (const std::int32_t column : columns) {
    if (column < least || column >= tensor.cols) {
      fail(ErrorKind::kCorrupt, "outlier column {} of {}: they must rise within the matrix", column,
           tensor.cols);
    }
    least = column + 1;
  }
  return columns;
}

}  // namespace nibble
