#include "formats/table_scales.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "formats/families.h"

namespace nibble {
namespace {

constexpr std::int64_t kScaleBlock = 256;  // scales of a block of SecondLevel::kDynamic
constexpr int kE8M0Bias = 127;
constexpr int kE8M0Largest = 127;  // 2^127; the code above it is NaN

const FloatCast& e4m3() {
  static const FloatCast cast(FloatBits{});
  return cast;
}

// One group of weights.
struct Group {
  const float* w;
  std::int64_t count;
  float absmax;
};

// Calls body(index, group) for every group, in the order of the scales.
template <class Body>
void for_each_group(const Scheme& scheme, const float* w, std::int64_t rows, std::int64_t cols,
                    const Body& body) {
  const bool whole = scheme.granularity == Granularity::kTensor;
  const std::int64_t length = whole ? rows * cols : group_length(scheme, cols);
  for (std::int64_t i = 0; i < rows * cols / length; ++i) {
    Group group{w + i * length, length, 0};
    for (std::int64_t k = 0; k < length; ++k) {
      group.absmax = std::max(group.absmax, std::abs(group.w[k]));
    }
    body(i, group);
  }
}

double squared_error(const CodeTable& table, const Group& group, float scale) {
  double sum = 0;
  for (std::int64_t i = 0; i < group.count; ++i) {
    const float value = table.value(table.nearest(group.w[i] / scale)) * scale;
    const double d = double{value} - double{group.w[i]};
    sum += d * d;
  }
  return sum;
}

// floor(log2 x) for x > 0.
int floor_log2(double x) {
  int exponent = 0;
  std::frexp(x, &exponent);
  return exponent - 1;
}

int ceil_log2(double x) {
  const int below = floor_log2(x);
  return std::ldexp(1, below) < x ? below + 1 : below;
}

std::uint8_t e8m0_code(int exponent) {
  return static_cast<std::uint8_t>(std::clamp(exponent, -kE8M0Bias, kE8M0Largest) + kE8M0Bias);
}

float e8m0_value(std::uint8_t code) {
  if (code == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(1.0f, code - kE8M0Bias);
}

std::uint8_t shared_exponent(const CodeTable& table, ScaleRule rule, const Group& group) {
  if (group.absmax == 0) return e8m0_code(0);
  const double absmax = double{group.absmax};
  const std::uint8_t low = e8m0_code(floor_log2(absmax) - floor_log2(double{table.max()}));
  if (rule == ScaleRule::kFloor) return low;
  const std::uint8_t high = e8m0_code(ceil_log2(absmax / double{table.max()}));
  if (rule == ScaleRule::kCeil || low == high) return high;
  const double low_error = squared_error(table, group, e8m0_value(low));
  return squared_error(table, group, e8m0_value(high)) < low_error ? high : low;
}

float smallest_positive(DType type) {
  if (type == DType::kF16) return to_float(f16{1});
  if (type == DType::kBF16) return to_float(bf16{1});
  return std::numeric_limits<float>::denorm_min();
}

Tensor float_scales(std::vector<float> scales, const std::vector<float>& absmax, DType type,
                    const Shape& shape) {
  Tensor plane = from_float(scales.data(), type, shape);
  to_float(plane, scales.data());
  for (std::size_t i = 0; i < scales.size(); ++i) {
    if (!std::isfinite(scales[i])) {
      fail(ErrorKind::kUnsupported, "weights up to {} need a scale beyond {}; use scales in F32",
           absmax[i], to_string(type));
    }
    // A range too small for the type still needs a scale that is not zero.
    if (scales[i] == 0) scales[i] = smallest_positive(type);
  }
  return from_float(scales.data(), type, shape);
}

Tensor scalar(float value) { return from_float(&value, DType::kF32, {1, 1}); }

// Second level kTensor: E4M3 multiples of one F32. With a choice of two scales a group, the larger
// is half as large again, so the F32 leaves room for it.
std::vector<Tensor> scales_of_tensor(const CodeTable& table, const Scheme& scheme, const float* w,
                                     std::int64_t rows, std::int64_t cols, const Shape& shape) {
  const bool choice = scheme.rule == ScaleRule::kFourOverSix;
  const float largest = choice ? 256.0f : e4m3().table().max();
  float absmax = 0;
  for (std::int64_t i = 0; i < rows * cols; ++i) absmax = std::max(absmax, std::abs(w[i]));
  float whole = absmax / (largest * table.max());
  if (whole == 0) whole = absmax == 0 ? 1.0f : std::numeric_limits<float>::denorm_min();

  Tensor codes = Tensor::allocate(DType::kF8E4M3, shape);
  auto* out = codes.mutable_data<std::uint8_t>();
  for_each_group(scheme, w, rows, cols, [&](std::int64_t i, const Group& group) {
    const auto code_for = [&](float top) {
      if (group.absmax == 0) return e4m3().code(1.0f);
      // Not zero: 1 is the smallest code.
      return std::max<std::uint8_t>(1, e4m3().code(group.absmax / top / whole));
    };
    std::uint8_t code = code_for(table.max());
    if (choice) {
      const std::uint8_t other = code_for(4.0f);
      const float scale = e4m3().value(code) * whole;
      if (squared_error(table, group, e4m3().value(other) * whole) <
          squared_error(table, group, scale)) {
        code = other;
      }
    }
    out[i] = code;
  });
  return {std::move(codes), scalar(whole)};
}

// Second level kDynamic. The mean is taken off, so that the signed map is used on both sides.
std::vector<Tensor> dynamic_scales(const std::vector<float>& scales, const Shape& shape) {
  double sum = 0;
  for (const float scale : scales) sum += double{scale};
  const auto count = static_cast<std::int64_t>(scales.size());
  const auto mean = static_cast<float>(sum / static_cast<double>(count));
  const std::int64_t blocks = (count + kScaleBlock - 1) / kScaleBlock;
  Tensor codes = Tensor::allocate(DType::kU8, shape);
  std::vector<float> offsets(scales.size());
  std::vector<float> block_scales(static_cast<std::size_t>(blocks));
  for (std::size_t i = 0; i < scales.size(); ++i) {
    offsets[i] = scales[i] - mean;
    float& largest = block_scales[i / kScaleBlock];
    largest = std::max(largest, std::abs(offsets[i]));
  }
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t begin = b * kScaleBlock;
    dynamic_map().encode(offsets.data() + begin, std::min(kScaleBlock, count - begin),
                         block_scales[static_cast<std::size_t>(b)],
                         codes.mutable_data<std::uint8_t>() + begin);
  }
  return {std::move(codes), from_float(block_scales.data(), DType::kF32, {1, blocks}),
          scalar(mean)};
}

}  // namespace

std::string why_no_scales(const CodeTable& table, const Scheme& scheme) {
  const bool shared = scheme.rule == ScaleRule::kFloor || scheme.rule == ScaleRule::kCeil ||
                      scheme.rule == ScaleRule::kLeastError;
  if (shared != (scheme.scale_type == DType::kF8E8M0)) {
    return "floor, ceil and best are rules for scales in e8m0, which need one";
  }
  const bool eight_bits = scheme.scale_type == DType::kF8E4M3;
  if (eight_bits != (scheme.second_level == SecondLevel::kTensor) ||
      (scheme.scale_type == DType::kU8) != (scheme.second_level == SecondLevel::kDynamic)) {
    return "scales of 8 bits need a second level";
  }
  if (scheme.rule == ScaleRule::kFourOverSix && (!eight_bits || table.max() != 6)) {
    return "4over6 is a choice between scales in e4m3 of elements up to 6";
  }
  if (scheme.scale_type != DType::kF8E8M0 && scheme.second_level == SecondLevel::kNone &&
      !is_float_weight(scheme.scale_type)) {
    return fmt::format("scales cannot be stored as {}", to_string(scheme.scale_type));
  }
  return "";
}

std::vector<PlaneSpec> scale_planes(const Scheme& scheme, std::int64_t rows, std::int64_t cols) {
  const Shape shape = group_shape(scheme, rows, cols);
  std::vector<PlaneSpec> planes = {{"scales", scheme.scale_type, shape}};
  if (scheme.second_level == SecondLevel::kTensor) {
    planes.push_back({"tensor_scale", DType::kF32, {1, 1}});
  }
  if (scheme.second_level == SecondLevel::kDynamic) {
    const std::int64_t blocks = (element_count(shape) + kScaleBlock - 1) / kScaleBlock;
    planes.push_back({"block_scales", DType::kF32, {1, blocks}});
    planes.push_back({"mean", DType::kF32, {1, 1}});
  }
  return planes;
}

std::vector<Tensor> choose_scales(const CodeTable& table, const Scheme& scheme, const float* w,
                                  std::int64_t rows, std::int64_t cols) {
  const Shape shape = group_shape(scheme, rows, cols);
  if (scheme.second_level == SecondLevel::kTensor) {
    return scales_of_tensor(table, scheme, w, rows, cols, shape);
  }
  if (scheme.scale_type == DType::kF8E8M0) {
    Tensor codes = Tensor::allocate(DType::kF8E8M0, shape);
    auto* out = codes.mutable_data<std::uint8_t>();
    for_each_group(scheme, w, rows, cols, [&](std::int64_t i, const Group& group) {
      out[i] = shared_exponent(table, scheme.rule, group);
    });
    return {std::move(codes)};
  }
  std::vector<float> absmax;
  std::vector<float> scales;
  const bool dynamic = scheme.second_level == SecondLevel::kDynamic;
  for_each_group(scheme, w, rows, cols, [&](std::int64_t, const Group& group) {
    absmax.push_back(group.absmax);
    // Scales of 1 would draw the mean away from those that matter.
    scales.push_back(group.absmax == 0 && !dynamic ? 1.0f : group.absmax / table.max());
  });
  if (dynamic) return dynamic_scales(scales, shape);
  return {float_scales(std::move(scales), absmax, scheme.scale_type, shape)};
}

float scale_at(const QuantTensor& tensor, std::int64_t index) {
  const Scheme& scheme = tensor.format->descriptor().scheme;
  const auto number = [&](std::size_t plane, std::int64_t at) {
    float value = 0;
    to_float(tensor.planes[plane], at, 1, &value);
    return value;
  };
  const Tensor& stored = tensor.planes[1];
  if (dtype_size(stored.dtype()) > 1) return number(1, index);
  const auto code = std::to_integer<std::uint8_t>(stored.bytes()[static_cast<std::size_t>(index)]);
  switch (scheme.second_level) {
    case SecondLevel::kNone:
      return e8m0_value(code);
    case SecondLevel::kTensor:
      return e4m3().value(code) * number(2, 0);
    case SecondLevel::kDynamic:
      break;
  }
  const float offset = dynamic_map().value(code) * number(2, index / kScaleBlock);
  return offset + number(3, 0);
}

}  // namespace nibble
