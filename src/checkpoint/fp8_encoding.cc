// Writing FP8 as DeepSeek and engines do (quant_method "fp8"); checkpoint/scaled_float_modules.h
// describes the tensors.
#include "checkpoint/fp8_encoding.h"

#include "checkpoint/float_storage.h"

namespace nibble {
namespace {

class Fp8Encoding final : public WeightEncoding {
 public:
  std::string convention() const override { return "fp8"; }

  std::string why_not(const Format& format) const override {
    if (float_layout(format) != FloatLayout::kFp8) return format.name() + " is no fp8_e4m3";
    const Scheme& scheme = format.descriptor().scheme;
    if (scheme.granularity == Granularity::kChannel) {
      return "fp8 has scales of blocks or of the matrix; compressed-tensors has those of rows";
    }
    return scheme.scale_type == DType::kF32 ? "" : "fp8 has scales in F32";
  }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
    return {planned_codes(m.module + ".weight", FloatLayout::kFp8, m.rows, m.cols),
            planned_scales(m.module + suffix(*m.format), m, {1})};
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& weight) const override {
    return {{module + ".weight", stored_codes(weight, FloatLayout::kFp8)},
            {module + suffix(*weight.format), stored_scales(weight, {1})}};
  }

  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& plain) const override {
    require_one_format(modules, "fp8");
    const Scheme& scheme = modules.front().format->descriptor().scheme;
    Json config = {{"quant_method", "fp8"},
                   {"fmt", "e4m3"},
                   {"activation_scheme", "dynamic"},
                   {"modules_to_not_convert", Json(plain)},
                   {"ignored_layers", Json(plain)}};
    if (scheme.granularity == Granularity::kBlock) {
      config["weight_block_size"] = {scheme.block_rows, scheme.group};
    }
    return config;
  }

 private:
  static const char* suffix(const Format& format) {
    const bool blocks = format.descriptor().scheme.granularity == Granularity::kBlock;
    return blocks ? ".weight_scale_inv" : ".weight_scale";
  }
};

}  // namespace

const WeightEncoding& fp8_encoding() {
  static const Fp8Encoding encoding;
  return encoding;
}

}  // namespace nibble
