#include "checkpoint/hf_directory.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include "checkpoint/input_transforms.h"

namespace nibble {
namespace {

constexpr std::array<std::string_view, 13> kCompanions = {
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
};

constexpr JsonLimits kConfigLimits{.max_bytes = std::size_t{16} << 20, .max_depth = 64};

// Where the writers of a method kept its config before there was quantization_config, and the
// method that a file means which names none.
constexpr std::pair<const char*, const char*> kLegacyConfigs[] = {
    {"quantize_config.json", "gptq"},
    {"quant_config.json", "awq"},
    {"hf_quant_config.json", "modelopt"}};

bool is_companion(std::string_view name) {
  return std::ranges::find(kCompanions, name) != kCompanions.end() || name.starts_with("LICENSE") ||
         name.starts_with("NOTICE");
}

class HfCheckpoint final : public Checkpoint {
 public:
  HfCheckpoint(const char* convention, std::shared_ptr<const HfDirectory> directory,
               std::unique_ptr<const QuantizedModules> quantized)
      : convention_(convention),
        directory_(std::move(directory)),
        quantized_(std::move(quantized)),
        companions_(find_companions(directory_->path)),
        transforms_(directory_->config.value("quantization_config", Json()),
                    (directory_->path / "config.json").string()) {}

  bool has(const std::string& name) const override { return directory_->files.has(name); }
  Tensor tensor(const std::string& name) const override { return directory_->files.tensor(name); }
  std::vector<std::string> names() const override { return directory_->files.names(); }

  bool has_linear(const std::string& module) const override {
    return has(module + ".weight") || (quantized_ != nullptr && quantized_->has(module));
  }
  QuantTensor linear(const std::string& module) const override {
    if (quantized_ != nullptr && quantized_->has(module)) return quantized_->read(module);
    return read_plain_linear(directory_->files, module);
  }
  ActivationFormatPtr activations(const std::string& module) const override {
    const bool quantized = quantized_ != nullptr && quantized_->has(module);
    return quantized ? quantized_->activations(module) : nullptr;
  }

  std::int64_t input_hadamard(const std::string& module) const override {
    return transforms_.block(module);
  }

  std::string convention() const override { return convention_; }
  const std::filesystem::path& path() const override { return directory_->path; }
  const Json& config() const override { return directory_->config; }
  std::vector<std::string> companion_files() const override { return companions_; }
  std::vector<std::string> notes() const override {
    return quantized_ != nullptr ? quantized_->notes() : std::vector<std::string>();
  }

 private:
  const char* convention_;
  std::shared_ptr<const HfDirectory> directory_;
  std::unique_ptr<const QuantizedModules> quantized_;
  std::vector<std::string> companions_;
  InputTransforms transforms_;
};

}  // namespace

Json quantization_config_of(const std::filesystem::path& path) {
  if (std::filesystem::exists(path / "config.json")) {
    const Json config = read_hf_config(path);
    const auto found = config.find("quantization_config");
    if (found != config.end() && !found->is_null()) {
      if (!found->is_object()) {
        fail(ErrorKind::kCorrupt, "{}: quantization_config is no object",
             (path / "config.json").string());
      }
      return *found;
    }
  }
  for (const auto& [name, method] : kLegacyConfigs) {
    const std::filesystem::path file = path / name;
    if (!std::filesystem::exists(file)) continue;
    Json legacy = read_json_file(file.string(), kConfigLimits);
    if (!legacy.is_object()) fail(ErrorKind::kCorrupt, "{}: no JSON object", file.string());
    if (!legacy.contains("quant_method")) legacy["quant_method"] = method;
    return legacy;
  }
  return nullptr;
}

std::string quant_method_of(const std::filesystem::path& path) {
  const Json quantization = quantization_config_of(path);
  if (quantization.is_null()) return "";
  const auto method = quantization.find("quant_method");
  if (method == quantization.end() || !method->is_string()) {
    fail(ErrorKind::kCorrupt, "{}: quantization_config has no quant_method",
         (path / "config.json").string());
  }
  return method->get<std::string>();
}

Json read_hf_config(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  if (!std::filesystem::exists(path)) {
    fail(ErrorKind::kCorrupt, "{}: no config.json; a Hugging Face directory has one",
         directory.string());
  }
  Json config = read_json_file(path.string(), kConfigLimits);
  if (!config.is_object()) fail(ErrorKind::kCorrupt, "{}: no JSON object", path.string());
  return config;
}

std::vector<std::string> find_companions(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && is_companion(name)) names.push_back(name);
  }
  std::ranges::sort(names);
  return names;
}

Tensor read_matrix(const TensorFiles& files, const std::string& name, DType dtype, ErrorKind kind) {
  Tensor tensor = files.tensor(name);
  if (tensor.dtype() != dtype || tensor.shape().size() != 2 || tensor.elements() == 0) {
    fail(kind, "tensor '{}': {} {} where a matrix of {} is needed", name, to_string(tensor.dtype()),
         to_string(tensor.shape()), to_string(dtype));
  }
  return tensor;
}

float read_single_float(const TensorFiles& files, const std::string& name) {
  const Tensor tensor = files.tensor(name);
  if (!is_float_weight(tensor.dtype()) || tensor.elements() != 1) {
    fail(ErrorKind::kCorrupt, "tensor '{}': not one float", name);
  }
  float value = 0;
  to_float(tensor, 0, 1, &value);
  return value;
}

std::vector<std::int32_t> read_indices(const TensorFiles& files, const std::string& name) {
  if (!files.has(name)) return {};
  const Tensor index = files.tensor(name);
  if (index.dtype() != DType::kI32) {
    fail(ErrorKind::kCorrupt, "tensor '{}': {} where I32 is needed", name,
         to_string(index.dtype()));
  }
  std::vector<std::int32_t> values(static_cast<std::size_t>(index.elements()));
  if (!values.empty()) std::memcpy(values.data(), index.bytes().data(), index.byte_size());
  return values;
}

bool is_head(const std::string& module) {
  return module == "lm_head" || module.ends_with(".lm_head");
}

std::int64_t without_padding(const Json& config, const std::string& module, std::int64_t rows,
                             std::int64_t padding) {
  const Json size = config.value("vocab_size", Json());
  if (!is_head(module) || !size.is_number_unsigned()) return rows;
  const auto all = static_cast<std::uint64_t>(rows), wanted = size.get<std::uint64_t>();
  const bool padded =
      wanted > 0 && wanted < all && all - wanted < static_cast<std::uint64_t>(padding);
  return padded ? static_cast<std::int64_t>(wanted) : rows;
}

QuantTensor read_plain_linear(const TensorFiles& files, const std::string& module) {
  const std::string name = module + ".weight";
  Tensor weight = files.tensor(name);
  if (weight.shape().size() != 2) {
    fail(ErrorKind::kCorrupt, "tensor '{}': a matrix is needed, the shape is {}", name,
         to_string(weight.shape()));
  }
  if (!is_float_weight(weight.dtype())) {
    fail(ErrorKind::kUnsupported, "tensor '{}': weights of {} without a known quantization", name,
         to_string(weight.dtype()));
  }
  return dense(std::move(weight));
}

std::shared_ptr<const HfDirectory> open_hf_directory(const std::filesystem::path& path) {
  return std::make_shared<const HfDirectory>(
      HfDirectory{path, read_hf_config(path), TensorFiles(path)});
}

std::unique_ptr<Checkpoint> make_hf_checkpoint(const char* convention,
                                               std::shared_ptr<const HfDirectory> directory,
                                               std::unique_ptr<const QuantizedModules> quantized) {
  return std::make_unique<HfCheckpoint>(convention, std::move(directory), std::move(quantized));
}

}  // namespace nibble
