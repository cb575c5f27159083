// Writing FP8 and NVFP4 as Model Optimizer does (quant_method "modelopt");
// checkpoint/scaled_float_modules.h describes the tensors. NVFP4 may be of weights alone; FP8
// rounds inputs too, by a static scale where weights have one for the matrix, by row where they
// have one for each row. Source: Model Optimizer, torch/export; vLLM, quantization/modelopt.py.
#include "checkpoint/float_storage.h"
#include "checkpoint/fp8_encoding.h"
#include "checkpoint/input_scales.h"

namespace nibble {
namespace {

bool has_row_scales(const Format& format) {
  return format.descriptor().scheme.granularity == Granularity::kChannel;
}

class ModelOptEncoding final : public WeightEncoding {
 public:
  std::string convention() const override { return "modelopt"; }

  std::string why_not(const Format& format) const override {
    const auto layout = float_layout(format);
    if (layout == FloatLayout::kNvfp4) return "";
    if (layout != FloatLayout::kFp8) return "ModelOpt has FP8 and NVFP4";
    const Scheme& scheme = format.descriptor().scheme;
    if (scheme.granularity == Granularity::kBlock) {
      return "FP8 of ModelOpt has scales of the matrix or its rows";
    }
    return scheme.scale_type == DType::kF32 ? "" : "FP8 of ModelOpt has scales in F32";
  }

  std::string why_no_activations(const QuantizedModule& m) const override {
    if (float_layout(*m.format) == FloatLayout::kNvfp4) {
      return "NVFP4 of ModelOpt is written for weights alone";
    }
    const char* const wanted =
        has_row_scales(*m.format) ? kModelOptTokenInputs : kModelOptStaticInputs;
    if (m.activations->name() == wanted) return "";
    return fmt::format("FP8 of ModelOpt with such weights rounds inputs to {}, not to {}", wanted,
                       m.activations->name());
  }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
    const FloatLayout layout = *float_layout(*m.format);
    const std::string name = m.module + ".weight";
    std::vector<StoredTensor> tensors = {planned_codes(name, layout, m.rows, m.cols),
                                         planned_scales(name + "_scale", m, {})};
    if (layout == FloatLayout::kNvfp4) {
      tensors.push_back({name + "_scale_2", DType::kF32, {}});
      return tensors;
    }
    if (m.activations == nullptr) {
      fail(ErrorKind::kUnsupported,
           "module '{}': FP8 of ModelOpt rounds inputs too, and those of this one are not",
           m.module);
    }
    if (has_row_scales(*m.format)) tensors[1].shape = {m.rows};
    plan_input_scales(m, tensors);
    return tensors;
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& weight) const override {
    const FloatLayout layout = *float_layout(*weight.format);
    const std::string name = module + ".weight";
    std::vector<std::pair<std::string, Tensor>> tensors = {
        {name, stored_codes(weight, layout)}, {name + "_scale", stored_scales(weight, {})}};
    if (layout == FloatLayout::kNvfp4) {
      tensors.emplace_back(name + "_scale_2", weight.planes[2].reshaped({}));
    } else if (has_row_scales(*weight.format)) {
      tensors[1].second = tensors[1].second.reshaped({weight.rows});
    }
    return tensors;
  }

  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& plain) const override {
    require_one_format(modules, "ModelOpt");
    const Format& format = *modules.front().format;
    const bool nvfp4 = float_layout(format) == FloatLayout::kNvfp4;
    const char* const algorithm = nvfp4                    ? "W4A16_NVFP4"
                                  : has_row_scales(format) ? kModelOptRows
                                                           : "FP8";
    Json details = {{"quant_algo", algorithm},
                    {"kv_cache_quant_algo", nullptr},
                    {"exclude_modules", Json(plain)}};
    if (nvfp4) details["group_size"] = 16;
    return {{"quant_method", "modelopt"},
            {"quant_algo", algorithm},
            {"ignore", Json(plain)},
            {"quantization", std::move(details)}};
  }
};

}  // namespace

const WeightEncoding& modelopt_encoding() {
  static const ModelOptEncoding encoding;
  return encoding;
}

}  // namespace nibble
