// Plain float matrices.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/error.h"
#include "formats/families.h"
#include "formats/float_planes.h"
#include "formats/stochastic.h"

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

  QuantTensor encode(const float* w, std::int64_t rows, std::int64_t cols,
                     const Codec& codec) const override;

  void decode(const QuantTensor& tensor, std::int64_t row, std::int64_t begin, std::int64_t count,
              float* out, const SpanKernels& spans) const override {
    read_floats(tensor.planes[0], row * tensor.cols + begin, count, out, spans);
  }

 private:
  DType type() const { return descriptor_.element.float_type; }

  WeightDescriptor descriptor_;
};

const FloatCast& half_cast(DType type) {
  static const FloatCast f16_cast({5, 10, 15, FloatKind::kIeee});
  static const FloatCast bf16_cast({8, 7, 127, FloatKind::kIeee});
  return type == DType::kF16 ? f16_cast : bf16_cast;
}

void write_row_stochastically(const float* w, DType type, std::int64_t cols, std::uint64_t seed,
                              Tensor& plane, std::int64_t row) {
  auto* codes = plane.mutable_data<std::uint16_t>() + row * cols;
  for (std::int64_t i = 0; i < cols; ++i) {
    const double draw = uniform_draw(seed, static_cast<std::uint64_t>(row * cols + i));
    codes[i] = half_cast(type).stochastic_code(w[i], draw, Overflow::kReport);
  }
}

// Whether all of a row is finite, and stays so in its type: what rounds to no infinity does.
bool row_fits(const float* w, DType type, std::int64_t cols, const SpanKernels& spans) {
  float largest = 0;
  if (!spans.magnitudes(w, 1, cols, &largest)) return false;
  if (type == DType::kF16) return std::isfinite(to_float(to_f16(largest)));
  return type == DType::kF32 || std::isfinite(to_float(to_bf16(largest)));
}

QuantTensor FloatFormat::encode(const float* w, std::int64_t rows, std::int64_t cols,
                                const Codec& codec) const {
  require_fits(*this, rows, cols);
  QuantTensor result{make_float_format(descriptor_), rows, cols, {Tensor{}}};
  Tensor& plane = result.planes[0];
  plane = Tensor::allocate(type(), {rows, cols});
  const bool stochastic = codec.rounding == Rounding::kStochastic && type() != DType::kF32;
  std::atomic<bool> fits = true;
  codec.for_rows(rows, cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      if (stochastic) {
        write_row_stochastically(w + row * cols, type(), cols, codec.seed, plane, row);
      } else {
        write_floats(w + row * cols, row * cols, cols, plane, *codec.spans);
      }
      if (!row_fits(w + row * cols, type(), cols, *codec.spans)) fits = false;
    }
  });
  if (fits) return result;
  require_finite(name(), w, rows, cols);
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    float stored = 0;
    to_float(plane, i, 1, &stored);
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
