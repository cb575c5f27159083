#include "checkpoint/exact_form.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "formats/affine.h"
#include "formats/block_forms.h"
#include "formats/registry.h"

namespace nibble {
namespace {

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<float> floats_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  to_float(tensor, values.data());
  return values;
}

// The weight with scales of another float type; none when they cannot be held.
std::optional<QuantTensor> with_scales(QuantTensor weight, DType type) {
  Tensor& scales = weight.planes[1];
  if (!is_float_weight(scales.dtype())) return std::nullopt;
  const std::vector<float> values = floats_of(scales);
  Tensor plane = from_float(values.data(), type, scales.shape());
  if (!same_bits(floats_of(plane), values)) return std::nullopt;
  scales = std::move(plane);
  weight.format = with_scale_type(weight.format, type);
  return weight;
}

// Integers: symmetric with zero points written out, or asymmetric without them where they say
// nothing.
std::optional<QuantTensor> with_other_symmetry(QuantTensor weight) {
  WeightDescriptor descriptor = weight.format->descriptor();
  const auto middle = static_cast<std::byte>(1 << (descriptor.element.bits - 1));
  if (descriptor.scheme.symmetric) {
    Tensor zeros = Tensor::allocate(DType::kU8, weight.planes[1].shape());
    std::memset(zeros.address(), std::to_integer<int>(middle), zeros.byte_size());
    weight.planes.push_back(std::move(zeros));
  } else {
    if (!std::ranges::all_of(weight.planes[2].bytes(), [&](std::byte z) { return z == middle; })) {
      return std::nullopt;
    }
    weight.planes.pop_back();
  }
  descriptor.scheme.symmetric = !descriptor.scheme.symmetric;
  descriptor.scheme.rule = ScaleRule::kAbsmax;  // the encoder's, which decoding does not need
  weight.format = make_format(descriptor);
  return weight;
}

// The one value of a [1, 1] plane for each row.
Tensor repeated(const Tensor& plane, std::int64_t rows) {
  Tensor out = Tensor::allocate(plane.dtype(), {rows, 1});
  auto* to = static_cast<std::byte*>(out.address());
  for (std::int64_t r = 0; r < rows; ++r, to += plane.byte_size()) {
    std::memcpy(to, plane.bytes().data(), plane.byte_size());
  }
  return out;
}

QuantTensor with_a_scale_per_row(QuantTensor weight) {
  WeightDescriptor descriptor = weight.format->descriptor();
  descriptor.scheme.granularity = Granularity::kChannel;
  for (std::size_t i = 1; i < weight.planes.size(); ++i) {
    weight.planes[i] = repeated(weight.planes[i], weight.rows);
  }
  weight.format = make_format(descriptor);
  return weight;
}

// The weight itself first.
std::vector<QuantTensor> equal_forms(const QuantTensor& weight) {
  std::vector<QuantTensor> forms = {weight};
  if (weight.format->is_float()) return forms;
  if (weight.format->is_block()) {
    if (const auto plain = plain_form_of_blocks(weight)) {
      std::ranges::move(equal_forms(*plain), std::back_inserter(forms));
    }
    return forms;
  }
  const Scheme& scheme = weight.format->descriptor().scheme;
  if (scheme.granularity == Granularity::kTensor && scheme.second_level == SecondLevel::kNone) {
    forms.push_back(with_a_scale_per_row(weight));
  }
  if (weight.format->is_affine()) {
    for (std::size_t i = 0, count = forms.size(); i < count; ++i) {
      if (auto other = with_other_symmetry(forms[i])) forms.push_back(std::move(*other));
    }
  }
  const std::size_t count = forms.size();
  for (const DType type : {DType::kF16, DType::kBF16, DType::kF32}) {
    for (std::size_t i = 0; i < count; ++i) {
      if (auto other = with_scales(forms[i], type)) forms.push_back(std::move(*other));
    }
  }
  return forms;
}

// Empty, or why the encoding cannot store this matrix.
std::string why_not(const WeightEncoding& encoding, const QuantizedModule& module) {
  if (std::string reason = encoding.why_not(*module.format); !reason.empty()) return reason;
  try {
    encoding.plan(module);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUnsupported) throw;
    return error.what();
  }
  return "";
}

QuantTensor decoded(const QuantTensor& weight, DType type) {
  std::vector<float> values(static_cast<std::size_t>(weight.rows * weight.cols));
  decode_all(weight, values.data());
  return dense(from_float(values.data(), type, {weight.rows, weight.cols}));
}

}  // namespace

ExactForm exact_form(const QuantTensor& weight, const QuantizedModule& module,
                     const WeightEncoding& encoding) {
  std::string refusal;
  if (module.activations != nullptr) refusal = encoding.why_no_activations(module);
  if (!refusal.empty()) return {std::nullopt, refusal};
  // The refusal that stays is that of the last form, which the others do not avoid.
  for (QuantTensor& form : equal_forms(weight)) {
    QuantizedModule stored = module;
    stored.format = form.format;
    stored.rows = form.rows;
    stored.cols = form.cols;
    refusal = why_not(encoding, stored);
    if (refusal.empty()) return {std::move(form), ""};
  }
  return {std::nullopt, refusal};
}

QuantTensor plain_form(const QuantTensor& weight) {
  for (const DType type : {DType::kBF16, DType::kF16}) {
    QuantTensor form = decoded(weight, type);
    if (difference(form, weight).empty()) return form;
  }
  return decoded(weight, DType::kF32);
}

std::string difference(const QuantTensor& a, const QuantTensor& b, Zeros zeros) {
  if (a.rows != b.rows || a.cols != b.cols) {
    return fmt::format("[{}, {}] instead of [{}, {}]", a.rows, a.cols, b.rows, b.cols);
  }
  std::vector<float> x(static_cast<std::size_t>(a.cols)), y(x.size());
  std::int64_t count = 0;
  float most = 0;
  for (std::int64_t r = 0; r < a.rows; ++r) {
    a.format->decode(a, r, 0, a.cols, x.data());
    b.format->decode(b, r, 0, b.cols, y.data());
    if (same_bits(x, y)) continue;
    for (std::size_t c = 0; c < x.size(); ++c) {
      if (std::bit_cast<std::uint32_t>(x[c]) == std::bit_cast<std::uint32_t>(y[c])) continue;
      if (zeros == Zeros::kEqual && x[c] == 0 && y[c] == 0) continue;
      ++count;
      most = std::max(most, std::abs(x[c] - y[c]));
    }
  }
  if (count == 0) return "";
  return fmt::format("{} of {} values differ, by {:.3g} at most", count, a.rows * a.cols, most);
}

}  // namespace nibble
