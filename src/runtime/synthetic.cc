#include "runtime/synthetic.h"

#include <algorithm>

#include "base/error.h"
#include "formats/random_weight.h"
#include "model/arch.h"

namespace nibble {
namespace {

constexpr float kDeviation = 0.02f;

}  // namespace

SyntheticSource::SyntheticSource(const std::string& shape_name, const ModelFormat& format)
    : shape_(find_synth_shape(shape_name)), format_(format), tensors_(synth_tensors(shape_)) {
  const FormatPtr plain = parse_weight_format("bf16");
  for (FormatPtr* part : {&format_.weights, &format_.embeddings}) {
    if (*part == nullptr) *part = plain;
    if (format_.scale_type_from_checkpoint) *part = with_scale_type(*part, DType::kBF16);
  }
  std::sort(tensors_.begin(), tensors_.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  for (const StoredTensor& tensor : tensors_) {
    if (tensor.shape.size() != 2) continue;
    const std::string why = format_of(tensor.name)->why_not(tensor.shape[0], tensor.shape[1]);
    if (!why.empty()) fail(ErrorKind::kUnsupported, "{}: {}", tensor.name, why);
  }
}

const FormatPtr& SyntheticSource::format_of(const std::string& name) const {
  return name.find(".layers.") != std::string::npos ? format_.weights : format_.embeddings;
}

ModelSpec SyntheticSource::spec() const { return build_spec(synth_config(shape_)); }

const StoredTensor* SyntheticSource::find(const std::string& name) const {
  const auto at = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const StoredTensor& tensor, const std::string& wanted) { return tensor.name < wanted; });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

// Norms only: matrices exist as linears.
bool SyntheticSource::has(const std::string& name) const {
  const StoredTensor* const stored = find(name);
  return stored != nullptr && stored->shape.size() == 1;
}

Tensor SyntheticSource::tensor(const std::string& name) const {
  if (!has(name)) fail(ErrorKind::kCorrupt, "tensor '{}' is not in the synthetic model", name);
  const Shape& shape = find(name)->shape;
  const std::vector<float> ones(static_cast<std::size_t>(element_count(shape)), 1.0f);
  return from_float(ones.data(), DType::kBF16, shape);
}

std::vector<std::string> SyntheticSource::names() const {
  std::vector<std::string> names;
  for (const StoredTensor& tensor : tensors_) {
    if (tensor.shape.size() == 1) names.push_back(tensor.name);
  }
  return names;
}

std::size_t SyntheticSource::byte_size() const {
  std::size_t bytes = 0;
  for (const StoredTensor& tensor : tensors_) {
    if (tensor.shape.size() == 2) {
      bytes +=
          QuantTensor{format_of(tensor.name), tensor.shape[0], tensor.shape[1], {}}.byte_size();
    } else {
      bytes += static_cast<std::size_t>(element_count(tensor.shape)) * dtype_size(DType::kBF16);
    }
  }
  return bytes;
}

bool SyntheticSource::has_linear(const std::string& module) const {
  const StoredTensor* const stored = find(module + ".weight");
  return stored != nullptr && stored->shape.size() == 2;
}

QuantTensor SyntheticSource::linear(const std::string& module) const {
  if (!has_linear(module)) {
    fail(ErrorKind::kCorrupt, "module '{}' is not in the synthetic model", module);
  }
  const Shape& shape = find(module + ".weight")->shape;
  return random_weight(format_of(module), shape[0], shape[1], kDeviation);
}

Model load_synthetic_model(const std::string& shape_name, Backend& backend,
                           const ModelFormat& format, const Room& besides) {
  const SyntheticSource source(shape_name, format);
  ModelFormat inputs;  // the weights are made in their format
  inputs.activations = format.activations;
  return Model(source.spec(), source, backend, inputs, besides);
}

}  // namespace nibble
