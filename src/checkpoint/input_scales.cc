#include "checkpoint/input_scales.h"

#include "base/error.h"

namespace nibble {
namespace {

std::string scale_name(const std::string& module) { return module + ".input_scale"; }
std::string zero_name(const std::string& module) { return module + ".input_zero_point"; }

std::int64_t scale_count(const ActivationDescriptor& d, std::int64_t cols) {
  return d.scope == ActivationScope::kChannel ? cols : 1;
}

// What is taken off a zero point, so that it is that of signed codes.
int middle(const ActivationDescriptor& d) { return 1 << (d.element.bits - 1); }

}  // namespace

void plan_input_scales(const QuantizedModule& module, std::vector<StoredTensor>& tensors) {
  if (!module.has_static_input()) return;
  const ActivationDescriptor& d = module.activations->descriptor();
  const Shape shape = {scale_count(d, module.cols)};
  tensors.push_back({scale_name(module.module), DType::kF32, shape});
  if (!d.symmetric) tensors.push_back({zero_name(module.module), DType::kI8, shape});
}

std::vector<std::pair<std::string, Tensor>> input_scales(const std::string& module,
                                                         const ActivationFormat& format) {
  const std::span<const AffineParams> given = format.fixed();
  NIBBLE_CHECK(!given.empty());
  const Shape shape = {static_cast<std::int64_t>(given.size())};
  Tensor scales = Tensor::allocate(DType::kF32, shape);
  Tensor zeros = Tensor::allocate(DType::kI8, shape);
  for (std::size_t i = 0; i < given.size(); ++i) {
    scales.mutable_data<float>()[i] = given[i].scale;
    zeros.mutable_data<std::int8_t>()[i] =
        static_cast<std::int8_t>(given[i].zero - middle(format.descriptor()));
  }
  std::vector<std::pair<std::string, Tensor>> tensors = {{scale_name(module), std::move(scales)}};
  if (!format.descriptor().symmetric) tensors.emplace_back(zero_name(module), std::move(zeros));
  return tensors;
}

ActivationFormatPtr read_input_scales(const TensorFiles& files, const std::string& module,
                                      std::int64_t cols, const ActivationFormat& format) {
  const ActivationDescriptor& d = format.descriptor();
  const std::int64_t count = scale_count(d, cols);
  const Tensor scales = files.tensor(scale_name(module));
  if (!is_float_weight(scales.dtype()) || scales.elements() != count) {
    fail(ErrorKind::kCorrupt, "tensor '{}': {} {} where {} floats are needed", scale_name(module),
         to_string(scales.dtype()), to_string(scales.shape()), count);
  }
  std::vector<float> values(static_cast<std::size_t>(count));
  to_float(scales, values.data());
  std::vector<AffineParams> params(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) params[i].scale = values[i];
  if (!d.symmetric) {
    const Tensor zeros = files.tensor(zero_name(module));
    if (zeros.dtype() != DType::kI8 || zeros.elements() != count) {
      fail(ErrorKind::kCorrupt, "tensor '{}': {} {} where {} of I8 are needed", zero_name(module),
           to_string(zeros.dtype()), to_string(zeros.shape()), count);
    }
    for (std::size_t i = 0; i < params.size(); ++i) {
      params[i].zero = std::to_integer<std::int8_t>(zeros.bytes()[i]) + middle(d);
    }
  }
  return format.with_scales(std::move(params));
}

}  // namespace nibble
