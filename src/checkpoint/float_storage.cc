#include "checkpoint/float_storage.h"

#include <cmath>
#include <cstring>
#include <memory>

#include "checkpoint/byte_codes.h"

namespace nibble {
namespace {

bool is_e2m1(const Element& element) {
  return element.kind == ElementKind::kFloatBits && element.bits == 4 &&
         element.float_bits == FloatBits{2, 1, 1, FloatKind::kAllFinite, true};
}

bool is_e4m3(const Element& element) {
  return element.kind == ElementKind::kFloatBits && element.bits == 8 &&
         element.float_bits == FloatBits();
}

}  // namespace

std::optional<FloatLayout> float_layout(const Format& format) {
  const Element& element = format.descriptor().element;
  const Scheme& scheme = format.descriptor().scheme;
  const bool groups = scheme.granularity == Granularity::kGroup;
  const bool plain = scheme.second_level == SecondLevel::kNone;
  if (is_e4m3(element) && plain && !groups && is_float_weight(scheme.scale_type)) {
    return FloatLayout::kFp8;
  }
  if (!groups) return std::nullopt;
  if (is_e2m1(element) && scheme.group == 16 && scheme.scale_type == DType::kF8E4M3 &&
      scheme.second_level == SecondLevel::kTensor) {
    return FloatLayout::kNvfp4;
  }
  if (scheme.group != 32 || scheme.scale_type != DType::kF8E8M0 || !plain) return std::nullopt;
  if (is_e2m1(element)) return FloatLayout::kMxfp4;
  if (is_e4m3(element)) return FloatLayout::kMxfp8;
  return std::nullopt;
}

StoredTensor planned_codes(const std::string& name, FloatLayout layout, std::int64_t rows,
                           std::int64_t cols) {
  if (has_four_bits(layout)) return {name, DType::kU8, {rows, cols / 2}};
  return {name, DType::kF8E4M3, {rows, cols}};
}

Tensor stored_codes(const QuantTensor& weight, FloatLayout layout) {
  const Tensor& codes = weight.planes[0];
  if (!has_four_bits(layout)) return unpack_rows(codes, weight.cols, DType::kF8E4M3);
  // Groups of 16 and 32 columns fill words.
  return retyped(codes, DType::kU8, {weight.rows, weight.cols / 2});
}

StoredTensor planned_scales(const std::string& name, const QuantizedModule& module,
                            const Shape& of_matrix) {
  const PlaneSpec plane = module.format->planes(module.rows, module.cols)[1];
  const Scheme& scheme = module.format->descriptor().scheme;
  const DType type = plane.dtype == DType::kF8E8M0 ? DType::kU8 : plane.dtype;
  return {name, type, scheme.granularity == Granularity::kTensor ? of_matrix : plane.shape};
}

Tensor stored_scales(const QuantTensor& weight, const Shape& of_matrix) {
  const Tensor& scales = weight.planes[1];
  const Scheme& scheme = weight.format->descriptor().scheme;
  const Shape shape = scheme.granularity == Granularity::kTensor ? of_matrix : scales.shape();
  return scales.dtype() == DType::kF8E8M0 ? retyped(scales, DType::kU8, shape)
                                          : scales.reshaped(shape);
}

float second_scale(const QuantTensor& weight) {
  float scale = 0;
  to_float(weight.planes[2], &scale);
  return scale;
}

float nearest_inverse(float scale) {
  const float inverse = 1.0f / scale;
  float best = inverse;
  for (const float candidate : {std::nextafter(inverse, 0.0f), std::nextafter(inverse, INFINITY)}) {
    if (std::abs(1.0f / candidate - scale) < std::abs(1.0f / best - scale)) best = candidate;
  }
  return best;
}

}  // namespace nibble
