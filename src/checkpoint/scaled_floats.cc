#include "checkpoint/scaled_floats.h"

#include <cmath>
#include <memory>

#include "base/error.h"
#include "checkpoint/affine_parts.h"
#include "checkpoint/byte_codes.h"
#include "formats/registry.h"

namespace nibble {
namespace {

struct Codes {
  std::int64_t rows = 0, cols = 0;
  int bits = 8;
};

Codes measure(const Tensor& codes, const std::string& what) {
  const bool eight = codes.dtype() == DType::kF8E4M3;
  if (!eight && codes.dtype() != DType::kU8) {
    fail(ErrorKind::kUnsupported, "{}: weights of {}; F8_E4M3, or U8 with two E2M1, can be read",
         what, to_string(codes.dtype()));
  }
  if (codes.shape().size() != 2 || codes.elements() == 0) {
    fail(ErrorKind::kCorrupt, "{}: weights of shape {}", what, to_string(codes.shape()));
  }
  return {codes.dim(0), codes.dim(1) * (eight ? 1 : 2), eight ? 8 : 4};
}

Scheme scheme_of(const ScaledFloats& parts, const std::string& what) {
  Scheme scheme;
  scheme.granularity = parts.granularity;
  scheme.group = parts.group;
  scheme.block_rows = parts.block_rows;
  scheme.scale_type = parts.scales.dtype();
  if (scheme.scale_type == DType::kF8E4M3) {
    scheme.second_level = SecondLevel::kTensor;
  } else if (parts.tensor_scale.has_value()) {
    fail(ErrorKind::kUnsupported, "{}: a scale of the tensor over scales of {}", what,
         to_string(scheme.scale_type));
  } else if (scheme.scale_type == DType::kU8 || scheme.scale_type == DType::kF8E8M0) {
    scheme.scale_type = DType::kF8E8M0;
    scheme.rule = ScaleRule::kFloor;  // how its encoder chose is not known; decoding is the same
  } else if (!is_float_weight(scheme.scale_type)) {
    fail(ErrorKind::kUnsupported, "{}: scales of {}", what, to_string(scheme.scale_type));
  }
  return scheme;
}

Tensor tensor_scale_plane(const ScaledFloats& parts, const std::string& what) {
  const float scale = parts.tensor_scale.value_or(0.0f);
  if (!(scale > 0) || !std::isfinite(scale)) {
    fail(ErrorKind::kCorrupt, "{}: scales in F8_E4M3 need a positive scale of the tensor", what);
  }
  return from_float(&scale, DType::kF32, {1, 1});
}

}  // namespace

QuantTensor assemble(const ScaledFloats& parts, const std::string& what) {
  const Codes size = measure(parts.codes, what);
  WeightDescriptor descriptor;
  descriptor.element = {.kind = ElementKind::kFloatBits, .bits = size.bits};
  if (size.bits == 4) descriptor.element.float_bits = {2, 1, 1, FloatKind::kAllFinite, true};
  descriptor.scheme = scheme_of(parts, what);
  QuantTensor weight{make_format(descriptor), size.rows, size.cols, {}};
  if (const std::string reason = weight.format->why_not(size.rows, size.cols); !reason.empty()) {
    fail(ErrorKind::kUnsupported, "{}: {}", what, reason);
  }
  const Shape groups = weight.format->planes(size.rows, size.cols)[1].shape;
  const Tensor scales = as_parameters(parts.scales, groups, "scales of " + what);
  // The bytes of U8 scales are those of E8M0.
  weight.planes = {pack_rows(parts.codes),
                   retyped(scales, descriptor.scheme.scale_type, scales.shape())};
  if (descriptor.scheme.second_level == SecondLevel::kTensor) {
    weight.planes.push_back(tensor_scale_plane(parts, what));
  }
  validate(weight);
  return weight;
}

}  // namespace nibble
