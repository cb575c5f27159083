// Plain float matrices.
#include <cmath>

#include "base/error.h"
#include "formats/families.h"

namespace nibble {
namespace {

class FloatFormat : public Format {
 public:
  explicit FloatFormat(const WeightDescriptor& descriptor) : descriptor_(descriptor) {}

  std::string name() const override {
    switch (type()) {
      case DType::kF16:
        return "f16";
      case DType::kBF16:
        return "bf16";
      default:
        return "f32";
    }
  }

  const WeightDescriptor& descriptor() const override { return descriptor_; }

  std::string why_not(std::int64_t rows, std::int64_t cols) const override {
    return rows < 1 || cols < 1 ? "the matrix is empty" : "";
  }

  std::vector<PlaneSpec> planes(std::int64_t rows, std::int64_t cols) const override {
    return {{"weight", type(), {rows, cols}}};
  }

  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols) const override;

  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out) const override {
    to_float(tensor.planes[0], row * tensor.cols + begin, count, out);
  }

 private:
  DType type() const { return descriptor_.element.float_type; }

  WeightDescriptor descriptor_;
};

QuantTensor FloatFormat::encode(const float* w, std::int64_t rows, std::int64_t cols) const {
  const std::string reason = why_not(rows, cols);
  if (!reason.empty()) fail(ErrorKind::kUsage, "{}: {}", name(), reason);
  require_finite(name(), w, rows, cols);
  const FormatPtr self = make_float_format(descriptor_);
  QuantTensor result{self, rows, cols, {from_float(w, type(), {rows, cols})}};
  if (type() == DType::kF32) return result;
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    float stored = 0;
    to_float(result.planes[0], i, 1, &stored);
    if (!std::isfinite(stored)) {
      fail(ErrorKind::kUnsupported, "{}: row {} column {}: {} is beyond the largest value", name(),
           i / cols, i % cols, w[i]);
    }
  }
  return result;
}

}  // namespace

FormatPtr make_float_format(const WeightDescriptor& descriptor) {
  return std::make_shared<FloatFormat>(descriptor);
}

}  // namespace nibble
