// Writing the compressed-tensors convention as version 0.17 does: pack-quantized integers and small
// floats in the formats of their names; and int-quantized and float-quantized for rounded inputs.
#include <algorithm>
#include <map>

#include "checkpoint/byte_codes.h"
#include "checkpoint/encoding.h"
#include "checkpoint/float_storage.h"
#include "checkpoint/input_scales.h"
#include "checkpoint/module_patterns.h"
#include "checkpoint/pack_quantized.h"

namespace nibble {
namespace {

const char* strategy_of(const Scheme& scheme) {
  switch (scheme.granularity) {
    case Granularity::kTensor:
      return "tensor";
    case Granularity::kChannel:
      return "channel";
    case Granularity::kGroup:
      return scheme.second_level == SecondLevel::kTensor ? "tensor_group" : "group";
    case Granularity::kBlock:
      return "block";
  }
  return "";
}

const char* scale_type_of(const Scheme& scheme) {
  if (scheme.scale_type == DType::kF32) return "torch.float32";
  if (scheme.scale_type == DType::kF8E4M3) return "torch.float8_e4m3fn";
  return scheme.scale_type == DType::kF8E8M0 ? "torch.uint8" : nullptr;
}

Json weight_args(const WeightDescriptor& descriptor) {
  const Scheme& scheme = descriptor.scheme;
  const bool grouped = scheme.granularity == Granularity::kGroup;
  const bool is_int = descriptor.element.kind == ElementKind::kInt;
  Json args = {
      {"num_bits", descriptor.element.bits},
      {"type", is_int ? "int" : "float"},
      {"symmetric", scheme.symmetric},
      {"strategy", strategy_of(scheme)},
      {"group_size", nullptr},
      {"block_structure", nullptr},
      {"dynamic", false},
      {"actorder", nullptr},
      {"scale_dtype", nullptr},
      {"zp_dtype", nullptr},
      {"observer", "minmax"},
      {"observer_kwargs", Json::object()},
  };
  if (grouped) args["group_size"] = scheme.group;
  if (!scheme.symmetric) args["zp_dtype"] = "torch.int8";
  if (scheme.granularity == Granularity::kBlock) {
    args["block_structure"] = {scheme.block_rows, scheme.group};
  }
  if (const char* type = scale_type_of(scheme)) args["scale_dtype"] = type;
  return args;
}

// What engines compute: one scale a token, found at run time, or one for all, given.
std::string why_no_inputs(const ActivationFormat& format) {
  const ActivationDescriptor& d = format.descriptor();
  const bool plain_fp8 =
      d.element.kind == ElementKind::kFloatBits && d.element.float_bits == FloatBits();
  if ((d.element.kind != ElementKind::kInt || d.element.bits != 8) && !plain_fp8) {
    return format.name() + " is neither int8 nor fp8_e4m3";
  }
  const bool fixed = d.is_static && d.scope == ActivationScope::kTensor;
  if ((d.scope != ActivationScope::kToken && !fixed) || d.has_outliers()) {
    return format.name() + " is neither by token alone nor static";
  }
  return "";
}

Json input_args(const ActivationFormat* format) {
  if (format == nullptr) return nullptr;
  const ActivationDescriptor& d = format->descriptor();
  return {
      {"num_bits", d.element.bits}, {"type", d.element.kind == ElementKind::kInt ? "int" : "float"},
      {"symmetric", d.symmetric},   {"strategy", d.is_static ? "tensor" : "token"},
      {"group_size", nullptr},      {"block_structure", nullptr},
      {"dynamic", !d.is_static},    {"actorder", nullptr},
      {"scale_dtype", nullptr},     {"zp_dtype", nullptr},
      {"observer", nullptr},        {"observer_kwargs", Json::object()},
  };
}

// Modules of one configuration, in the order in which they come.
struct ConfigGroup {
  FormatPtr format;
  ActivationFormatPtr activations;
  std::vector<std::string> members;

  bool is_of(const QuantizedModule& m) const {
    const bool same_input =
        (activations == nullptr) == (m.activations == nullptr) &&
        (activations == nullptr || activations->descriptor() == m.activations->descriptor());
    return same_input && format->descriptor() == m.format->descriptor();
  }
};

// `storage`: the name of the format, by the kind of elements.
Json compressed_config(const std::vector<QuantizedModule>& modules,
                       const std::vector<std::string>& plain,
                       std::string_view (*storage)(const Format&));

const char* codes_name(FloatLayout layout) {
  return has_four_bits(layout) ? ".weight_packed" : ".weight";
}

// Small floats: weight or weight_packed, weight_scale, and for NVFP4 the inverse of the scale over
// those.
std::vector<StoredTensor> plan_floats(const QuantizedModule& m) {
  const FloatLayout layout = *float_layout(*m.format);
  const char* codes = codes_name(layout);
  std::vector<StoredTensor> tensors = {planned_codes(m.module + codes, layout, m.rows, m.cols),
                                       planned_scales(m.module + ".weight_scale", m, {1})};
  if (layout == FloatLayout::kNvfp4) {
    tensors.push_back({m.module + ".weight_global_scale", DType::kF32, {1}});
  }
  plan_input_scales(m, tensors);
  return tensors;
}

std::vector<std::pair<std::string, Tensor>> encode_floats(const std::string& module,
                                                          const QuantTensor& weight) {
  const FloatLayout layout = *float_layout(*weight.format);
  const char* codes = codes_name(layout);
  std::vector<std::pair<std::string, Tensor>> tensors = {
      {module + codes, stored_codes(weight, layout)},
      {module + ".weight_scale", stored_scales(weight, {1})}};
  if (layout == FloatLayout::kNvfp4) {
    const float inverse = nearest_inverse(second_scale(weight));
    tensors.emplace_back(module + ".weight_global_scale", from_float(&inverse, DType::kF32, {1}));
  }
  return tensors;
}

std::string_view storage_name(const Format& format) {
  if (format.is_affine()) return "pack-quantized";
  switch (*float_layout(format)) {
    case FloatLayout::kFp8:
      return "float-quantized";
    case FloatLayout::kNvfp4:
      return "nvfp4-pack-quantized";
    case FloatLayout::kMxfp4:
      return "mxfp4-pack-quantized";
    case FloatLayout::kMxfp8:
      return "mxfp8-quantized";
  }
  return "";
}

class CompressedTensorsEncoding final : public WeightEncoding {
 public:
  std::string convention() const override { return "compressed-tensors"; }

  std::string why_not(const Format& format) const override {
    if (float_layout(format)) return "";
    if (!format.is_affine()) return format.name() + " is no format of compressed-tensors";
    const bool block = format.descriptor().scheme.granularity == Granularity::kBlock;
    return block ? format.name() + " has blocks of rows" : "";
  }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
    if (!m.format->is_affine()) return plan_floats(m);
    const std::vector<PlaneSpec> planes = m.format->planes(m.rows, m.cols);
    const WeightDescriptor& descriptor = m.format->descriptor();
    const bool whole = descriptor.scheme.granularity == Granularity::kTensor;
    std::vector<StoredTensor> tensors = {
        {m.module + ".weight_packed", planes[0].dtype, planes[0].shape},
        {m.module + ".weight_scale", planes[1].dtype, whole ? Shape{1} : planes[1].shape}};
    if (!descriptor.scheme.symmetric) {
      const std::int64_t words = packed_words(m.rows, descriptor.element.bits, Packing::kDense);
      tensors.push_back({m.module + ".weight_zero_point", whole ? DType::kI8 : DType::kI32,
                         whole ? Shape{1} : Shape{words, planes[1].shape[1]}});
    }
    tensors.push_back({m.module + ".weight_shape", DType::kI64, {2}});
    plan_input_scales(m, tensors);
    return tensors;
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& weight) const override {
    if (!weight.format->is_affine()) return encode_floats(module, weight);
    const WeightDescriptor& descriptor = weight.format->descriptor();
    const bool whole = descriptor.scheme.granularity == Granularity::kTensor;
    std::vector<std::pair<std::string, Tensor>> tensors;
    tensors.emplace_back(module + ".weight_packed", weight.planes[0]);
    tensors.emplace_back(module + ".weight_scale",
                         whole ? weight.planes[1].reshaped({1}) : weight.planes[1]);
    if (!descriptor.scheme.symmetric) {
      const Tensor& zeros = weight.planes[2];
      const int bits = descriptor.element.bits;
      tensors.emplace_back(module + ".weight_zero_point",
                           whole ? signed_zero(zeros, bits) : pack_zeros(zeros, bits));
    }
    Tensor shape = Tensor::allocate(DType::kI64, {2});
    shape.mutable_data<std::int64_t>()[0] = weight.rows;
    shape.mutable_data<std::int64_t>()[1] = weight.cols;
    tensors.emplace_back(module + ".weight_shape", std::move(shape));
    return tensors;
  }

  std::string why_no_activations(const QuantizedModule& m) const override {
    return why_no_inputs(*m.activations);
  }

  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& plain) const override {
    return compressed_config(modules, plain, storage_name);
  }

 private:
  // The zero point of a whole tensor is not packed.
  static Tensor signed_zero(const Tensor& zeros, int bits) {
    Tensor zero = Tensor::allocate(DType::kI8, {1});
    const int code = static_cast<int>(zeros.bytes()[0]);
    zero.mutable_data<std::int8_t>()[0] = static_cast<std::int8_t>(code - (1 << (bits - 1)));
    return zero;
  }
};

// A value a byte: int8 as signed numbers, FP8 as it is.
class TypedEncoding final : public WeightEncoding {
 public:
  std::string convention() const override { return "compressed-tensors"; }

  std::string why_not(const Format& format) const override {
    const WeightDescriptor& d = format.descriptor();
    const bool int8 = format.is_affine() && d.element.bits == 8 && d.scheme.symmetric;
    const bool fp8 = d.element.kind == ElementKind::kFloatBits &&
                     d.element.float_bits == FloatBits() && is_float_weight(d.scheme.scale_type);
    if (!int8 && !fp8) return format.name() + " is neither symmetric int8 nor fp8_e4m3";
    const bool whole_rows = d.scheme.granularity == Granularity::kChannel ||
                            d.scheme.granularity == Granularity::kTensor;
    return whole_rows ? "" : "engines take no groups of bytes";
  }

  std::string why_no_activations(const QuantizedModule& m) const override {
    const ElementKind kind = m.activations->descriptor().element.kind;
    if (kind != m.format->descriptor().element.kind) return "weights and inputs are of two kinds";
    return why_no_inputs(*m.activations);
  }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
    const std::vector<PlaneSpec> planes = m.format->planes(m.rows, m.cols);
    const bool whole = m.format->descriptor().scheme.granularity == Granularity::kTensor;
    std::vector<StoredTensor> tensors = {
        {m.module + ".weight",
         m.format->is_affine() ? DType::kI8 : DType::kF8E4M3,
         {m.rows, m.cols}},
        {m.module + ".weight_scale", planes[1].dtype, whole ? Shape{1} : planes[1].shape}};
    plan_input_scales(m, tensors);
    return tensors;
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& weight) const override {
    const bool is_int = weight.format->is_affine();
    const bool whole = weight.format->descriptor().scheme.granularity == Granularity::kTensor;
    Tensor values =
        unpack_rows(weight.planes[0], weight.cols, is_int ? DType::kI8 : DType::kF8E4M3);
    return {{module + ".weight", std::move(values)},
            {module + ".weight_scale", whole ? weight.planes[1].reshaped({1}) : weight.planes[1]}};
  }

  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& plain) const override {
    return compressed_config(modules, plain, [](const Format& format) -> std::string_view {
      return format.is_affine() ? "int-quantized" : "float-quantized";
    });
  }
};

Json compressed_config(const std::vector<QuantizedModule>& modules,
                       const std::vector<std::string>& plain,
                       std::string_view (*storage)(const Format&)) {
  std::vector<ConfigGroup> groups;
  std::map<std::string, std::size_t> modules_of_pattern;
  bool all_linear = true;
  for (const QuantizedModule& m : modules) {
    auto group = std::ranges::find_if(
        groups, [&](const ConfigGroup& candidate) { return candidate.is_of(m); });
    if (group == groups.end()) group = groups.insert(group, {m.format, m.activations, {}});
    group->members.push_back(m.module);
    ++modules_of_pattern[layer_pattern(m.module)];
    all_linear = all_linear && m.linear;
  }
  for (const std::string& module : plain) ++modules_of_pattern[layer_pattern(module)];
  const bool one_group = groups.size() == 1 && all_linear;

  Json config_groups = Json::object();
  std::string_view format;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const ConfigGroup& group = groups[i];
    const std::string_view stored = storage(*group.format);
    format = format.empty() || format == stored ? stored : "mixed-precision";
    config_groups[fmt::format("group_{}", i)] = {
        {"targets", one_group ? Json::array({"Linear"})
                              : Json(narrow_targets(group.members, modules_of_pattern))},
        {"weights", weight_args(group.format->descriptor())},
        {"input_activations", input_args(group.activations.get())},
        {"output_activations", nullptr},
        {"format", stored},
    };
  }
  return {
      {"quant_method", "compressed-tensors"},
      {"version", "0.17.0"},
      {"format", format},
      {"quantization_status", "compressed"},
      {"config_groups", std::move(config_groups)},
      {"ignore", plain},
      {"kv_cache_scheme", nullptr},
      {"global_compression_ratio", nullptr},
      {"sparsity_config", Json::object()},
      {"transform_config", Json::object()},
  };
}

}  // namespace

const WeightEncoding& compressed_tensors_encoding() {
  static const CompressedTensorsEncoding encoding;
  return encoding;
}

const WeightEncoding& compressed_tensors_typed_encoding() {
  static const TypedEncoding encoding;
  return encoding;
}

}  // namespace nibble
