// Writing FP8 as DeepSeek and engines do (quant_method "fp8"), and NVFP4 as Model Optimizer does
// ("modelopt"); checkpoint/scaled_float_modules.h describes the tensors.
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

// FP8 of Model Optimizer rounds inputs by scales of their own; NVFP4 may be of weights alone.
class ModelOptEncoding final : public WeightEncoding {
 public:
  std::string convention() const override { return "modelopt"; }

  std::string why_not(const Format& format) const override {
    if (float_layout(format) == FloatLayout::kNvfp4) return "";
    return format.name() + " is not NVFP4, the one format of ModelOpt that is written";
  }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
    return {planned_codes(m.module + ".weight", FloatLayout::kNvfp4, m.rows, m.cols),
            planned_scales(m.module + ".weight_scale", m, {}),
            {m.module + ".weight_scale_2", DType::kF32, {}}};
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& weight) const override {
    return {{module + ".weight", stored_codes(weight, FloatLayout::kNvfp4)},
            {module + ".weight_scale", stored_scales(weight, {})},
            {module + ".weight_scale_2", weight.planes[2].reshaped({})}};
  }

  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& plain) const override {
    require_one_format(modules, "ModelOpt");
    constexpr const char* kAlgorithm = "W4A16_NVFP4";
    return {{"quant_method", "modelopt"},
            {"quant_algo", kAlgorithm},
            {"ignore", Json(plain)},
            {"quantization",
             {{"quant_algo", kAlgorithm},
              {"kv_cache_quant_algo", nullptr},
              {"group_size", 16},
              {"exclude_modules", Json(plain)}}}};
  }
};

}  // namespace

const WeightEncoding& fp8_encoding() {
  static const Fp8Encoding encoding;
  return encoding;
}

const WeightEncoding& modelopt_encoding() {
  static const ModelOptEncoding encoding;
  return encoding;
}

}  // namespace nibble
