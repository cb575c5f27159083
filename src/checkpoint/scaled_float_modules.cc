#include "checkpoint/scaled_float_modules.h"

#include <algorithm>

#include "checkpoint/fp8_encoding.h"
#include "checkpoint/hf_directory.h"
#include "checkpoint/json_members.h"
#include "checkpoint/scaled_floats.h"

namespace nibble {
namespace {

constexpr std::int64_t kNvfp4Group = 16;

struct BlockSize {
  std::int64_t rows = 128, cols = 128;
};

BlockSize block_size_of(const Json& config, const std::string& what) {
  const Json* block = member(config, "weight_block_size");
  if (block == nullptr) return {};
  constexpr std::uint64_t kMaxBlock = 4096;
  const auto is_size = [](const Json& j) {
    return j.is_number_unsigned() && j.get<std::uint64_t>() - 1 < kMaxBlock;
  };
  if (!block->is_array() || block->size() != 2 || !std::ranges::all_of(*block, is_size)) {
    fail(ErrorKind::kCorrupt, "{}: weight_block_size is no [rows, cols]", what);
  }
  return {(*block)[0].get<std::int64_t>(), (*block)[1].get<std::int64_t>()};
}

class ScaledFloatModules final : public QuantizedModules {
 public:
  ScaledFloatModules(std::shared_ptr<const HfDirectory> directory, bool modelopt)
      : directory_(std::move(directory)), modelopt_(modelopt) {
    const Json config = quantization_config_of(directory_->path);
    block_ = block_size_of(config, directory_->path.string());
    by_row_ = text_of(config, "quant_algo") == kModelOptRows ||
              text_of(config.value("quantization", Json()), "quant_algo") == kModelOptRows;
  }

  bool has(const std::string& module) const override {
    return files().has(module + ".weight") &&
           (files().has(module + ".weight_scale") || files().has(module + ".weight_scale_inv"));
  }

  QuantTensor read(const std::string& module) const override {
    const std::string what = "module '" + module + "'";
    ScaledFloats parts;
    parts.codes = files().tensor(module + ".weight");
    const bool blocks = files().has(module + ".weight_scale_inv");
    parts.scales = files().tensor(module + (blocks ? ".weight_scale_inv" : ".weight_scale"));
    if (parts.codes.dtype() == DType::kU8 && parts.scales.dtype() != DType::kF8E4M3) {
      fail(ErrorKind::kUnsupported, "{}: 4-bit weights under scales of {}; only NVFP4 is read",
           what, to_string(parts.scales.dtype()));
    }
    if (parts.scales.dtype() == DType::kF8E4M3) {
      parts.tensor_scale = read_single_float(files(), module + ".weight_scale_2");
      parts.granularity = Granularity::kGroup;
      parts.group = kNvfp4Group;
    } else if (blocks && parts.scales.elements() > 1) {
      parts.granularity = Granularity::kBlock;
      parts.block_rows = block_.rows;
      parts.group = block_.cols;
    } else if (parts.scales.elements() > 1) {
      parts.granularity = Granularity::kChannel;
    }
    return assemble(parts, what);
  }

  ActivationFormatPtr activations(const std::string& module) const override {
    if (!modelopt_ || files().tensor(module + ".weight").dtype() != DType::kF8E4M3) return nullptr;
    const std::string scale = module + ".input_scale";
    if (files().has(scale)) {
      const ActivationFormatPtr format = parse_activation_format(kModelOptStaticInputs);
      return format->with_scales({{read_single_float(files(), scale), 0}});
    }
    return by_row_ ? parse_activation_format(kModelOptTokenInputs) : nullptr;
  }

  std::vector<std::string> notes() const override {
    const std::vector<std::string> names = files().names();
    const auto is_left_out = [&](const std::string& name) {
      if (!name.ends_with(kInputScale)) return false;
      const std::string module = name.substr(0, name.size() - kInputScale.size());
      return !has(module) || activations(module) == nullptr;
    };
    if (modelopt_ && std::ranges::none_of(names, is_left_out)) return {};
    return {directory_->path.string() +
            ": made for activations in small floats; they are computed in floating point here, so "
            "results are at least as accurate but not the same"};
  }

 private:
  static constexpr std::string_view kInputScale = ".input_scale";

  const TensorFiles& files() const { return directory_->files; }

  static std::string text_of(const Json& config, const char* key) {
    const Json value = config.is_object() ? config.value(key, Json()) : Json();
    return value.is_string() ? value.get<std::string>() : "";
  }

  std::shared_ptr<const HfDirectory> directory_;
  bool modelopt_;
  BlockSize block_;
  bool by_row_ = false;
};

}  // namespace

std::unique_ptr<Checkpoint> open_scaled_floats(const char* convention,
                                               const std::filesystem::path& path) {
  auto directory = open_hf_directory(path);
  const bool modelopt = std::string_view(convention) == "modelopt";
  auto modules = std::make_unique<ScaledFloatModules>(directory, modelopt);
  return make_hf_checkpoint(convention, std::move(directory), std::move(modules));
}

}  // namespace nibble
