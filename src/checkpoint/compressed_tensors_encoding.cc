// Writing the compressed-tensors convention, format pack-quantized, as version 0.17 does.
#include <algorithm>
#include <cstring>
#include <map>

#include "checkpoint/encoding.h"
#include "checkpoint/module_patterns.h"
#include "checkpoint/pack_quantized.h"

namespace nibble {
namespace {

Json weight_args(const WeightDescriptor& descriptor) {
  const Scheme& scheme = descriptor.scheme;
  const bool grouped = scheme.granularity == Granularity::kGroup;
  Json args = {
      {"num_bits", descriptor.element.bits},
      {"type", "int"},
      {"symmetric", scheme.symmetric},
      {"strategy", grouped                                       ? "group"
                   : scheme.granularity == Granularity::kChannel ? "channel"
                                                                 : "tensor"},
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
  if (scheme.scale_type == DType::kF32) args["scale_dtype"] = "torch.float32";
  return args;
}

class CompressedTensorsEncoding final : public WeightEncoding {
 public:
  std::string convention() const override { return "compressed-tensors"; }

  std::string why_not(const Format& format) const override {
    if (!format.is_affine()) return format.name() + " is no integer format";
    const bool block = format.descriptor().scheme.granularity == Granularity::kBlock;
    return block ? format.name() + " has blocks of rows" : "";
  }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
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
    return tensors;
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& weight) const override {
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

  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& plain) const override;

 private:
  // The zero point of a whole tensor is not packed.
  static Tensor signed_zero(const Tensor& zeros, int bits) {
    Tensor zero = Tensor::allocate(DType::kI8, {1});
    const int code = static_cast<int>(zeros.bytes()[0]);
    zero.mutable_data<std::int8_t>()[0] = static_cast<std::int8_t>(code - (1 << (bits - 1)));
    return zero;
  }
};

Json CompressedTensorsEncoding::quantization_config(const std::vector<QuantizedModule>& modules,
                                                    const std::vector<std::string>& plain) const {
  // Groups in the order in which their formats first appear.
  std::vector<std::pair<FormatPtr, std::vector<std::string>>> groups;
  std::map<std::string, std::size_t> modules_of_pattern;
  bool all_linear = true;
  for (const QuantizedModule& m : modules) {
    auto group = std::ranges::find_if(
        groups, [&](const auto& g) { return g.first->descriptor() == m.format->descriptor(); });
    if (group == groups.end()) group = groups.insert(group, {m.format, {}});
    group->second.push_back(m.module);
    ++modules_of_pattern[layer_pattern(m.module)];
    all_linear = all_linear && m.linear;
  }
  for (const std::string& module : plain) ++modules_of_pattern[layer_pattern(module)];
  const bool one_group = groups.size() == 1 && all_linear;

  Json config_groups = Json::object();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const auto& [format, members] = groups[i];
    config_groups[fmt::format("group_{}", i)] = {
        {"targets",
         one_group ? Json::array({"Linear"}) : Json(narrow_targets(members, modules_of_pattern))},
        {"weights", weight_args(format->descriptor())},
        {"input_activations", nullptr},
        {"output_activations", nullptr},
        {"format", "pack-quantized"},
    };
  }
  return {
      {"quant_method", "compressed-tensors"},
      {"version", "0.17.0"},
      {"format", "pack-quantized"},
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

}  // namespace nibble
