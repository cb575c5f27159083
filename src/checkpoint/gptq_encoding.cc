// Writing the GPTQ convention (conventions/gptq.cc describes the tensors).
//
// Everybody reads version 1, but a zero point of 0 is stored as all ones there, which some kernels
// take for 2^bits; version 2 stores zero points as they are.
#include <algorithm>
#include <map>

#include "checkpoint/affine_parts.h"
#include "checkpoint/encoding.h"
#include "checkpoint/module_patterns.h"
#include "checkpoint/pack_quantized.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

constexpr std::int64_t kWordBits = 32;

std::int64_t group_size(const Scheme& scheme) {
  return scheme.granularity == Granularity::kGroup ? scheme.group : -1;
}

class GptqEncoding final : public WeightEncoding {
 public:
  explicit GptqEncoding(int version) : version_(version) {}

  std::string convention() const override { return "gptq"; }

  std::string why_not(const Format& format) const override {
    const WeightDescriptor& d = format.descriptor();
    const int bits = d.element.bits;
    if (!format.is_affine()) return format.name() + " is no integer format";
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8) return "GPTQ has 2, 3, 4 and 8 bits";
    if (d.scheme.granularity == Granularity::kBlock) return "GPTQ has no blocks of rows";
    if (d.scheme.granularity == Granularity::kTensor) return "GPTQ has a scale a row at least";
    if (d.scheme.scale_type == DType::kF32) return "GPTQ has scales of 16 bits";
    return "";
  }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
    const WeightDescriptor& d = m.format->descriptor();
    const int bits = d.element.bits;
    require_linear(m, "GPTQ");
    if (m.cols * bits % kWordBits != 0) {
      fail(ErrorKind::kUnsupported, "module '{}': {} codes of {} bits do not fill words", m.module,
           m.cols, bits);
    }
    const std::int64_t groups = m.format->planes(m.rows, m.cols)[1].shape[1];
    return {
        {m.module + ".qweight", DType::kI32, {m.cols * bits / kWordBits, m.rows}},
        {m.module + ".qzeros", DType::kI32, {groups, packed_words(m.rows, bits, Packing::kDense)}},
        {m.module + ".scales", d.scheme.scale_type, {groups, m.rows}},
        {m.module + ".g_idx", DType::kI32, {m.cols}}};
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& weight) const override {
    const WeightDescriptor& d = weight.format->descriptor();
    const std::int64_t groups = weight.planes[1].dim(1);
    Tensor index = Tensor::allocate(DType::kI32, {weight.cols});
    for (std::int64_t c = 0; c < weight.cols; ++c) {
      index.mutable_data<std::int32_t>()[c] = static_cast<std::int32_t>(c / (weight.cols / groups));
    }
    return {{module + ".qweight", transposed(weight.planes[0])},
            {module + ".qzeros", transposed(pack_zeros(stored_zeros(weight), d.element.bits))},
            {module + ".scales", transposed(weight.planes[1])},
            {module + ".g_idx", std::move(index)}};
  }

  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& plain) const override;

 private:
  // U8 [rows, groups], one less in version 1, in the width of the field.
  Tensor stored_zeros(const QuantTensor& weight) const {
    const WeightDescriptor& d = weight.format->descriptor();
    const int mask = (1 << d.element.bits) - 1;
    const int less = version_ == 1 ? 1 : 0;
    Tensor zeros = Tensor::allocate(DType::kU8, weight.planes[1].shape());
    auto* out = zeros.mutable_data<std::uint8_t>();
    for (std::int64_t i = 0; i < zeros.elements(); ++i) {
      const int zero =
          d.scheme.symmetric
              ? 1 << (d.element.bits - 1)
              : std::to_integer<int>(weight.planes[2].bytes()[static_cast<std::size_t>(i)]);
      out[i] = static_cast<std::uint8_t>((zero - less) & mask);
    }
    return zeros;
  }

  int version_;
};

Json args_of(const WeightDescriptor& descriptor) {
  return {{"bits", descriptor.element.bits},
          {"group_size", group_size(descriptor.scheme)},
          {"sym", descriptor.scheme.symmetric}};
}

Json GptqEncoding::quantization_config(const std::vector<QuantizedModule>& modules,
                                       const std::vector<std::string>& plain) const {
  NIBBLE_CHECK(!modules.empty());
  std::map<std::string, std::size_t> modules_of_pattern;
  std::map<std::string, std::vector<std::string>> others;  // by arguments that are not the first's
  bool head = false;
  const Json common = args_of(modules.front().format->descriptor());
  for (const QuantizedModule& m : modules) {
    ++modules_of_pattern[layer_pattern(m.module)];
    const Json args = args_of(m.format->descriptor());
    if (args != common) others[args.dump()].push_back(m.module);
    head = head || m.module == "lm_head";
  }
  for (const std::string& module : plain) ++modules_of_pattern[layer_pattern(module)];
  Json dynamic = Json::object();
  for (const auto& [args, members] : others) {
    for (const std::string& target : narrow_targets(members, modules_of_pattern)) {
      dynamic["+:" + target_expression(target)] = Json::parse(args);
    }
  }
  std::vector<std::string> left;
  std::ranges::copy_if(plain, std::back_inserter(left),
                       [](const auto& m) { return m != "lm_head"; });
  for (const std::string& target : narrow_targets(left, modules_of_pattern)) {
    dynamic["-:" + target_expression(target)] = Json::object();
  }
  Json config = {{"quant_method", "gptq"},
                 {"checkpoint_format", version_ == 1 ? "gptq" : "gptq_v2"},
                 {"desc_act", false},
                 {"lm_head", head},
                 {"pack_dtype", "int32"}};
  config.update(common);
  if (!dynamic.empty()) config["dynamic"] = std::move(dynamic);
  return config;
}

}  // namespace

const WeightEncoding& gptq_encoding() {
  static const GptqEncoding encoding(1);
  return encoding;
}

const WeightEncoding& gptq_v2_encoding() {
  static const GptqEncoding encoding(2);
  return encoding;
}

}  // namespace nibble
