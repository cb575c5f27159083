#include "checkpoint/convert.h"

#include <algorithm>
#include <set>

#include "checkpoint/exact_form.h"
#include "checkpoint/fp8_encoding.h"
#include "checkpoint/gguf_convert.h"
#include "checkpoint/input_scales.h"
#include "checkpoint/source_modules.h"
#include "checkpoint/staging.h"
#include "checkpoint/writer.h"
#include "formats/registry.h"

namespace nibble {
namespace {

struct PlannedModule {
  QuantizedModule stored;  // in a float format where the target is plain
  bool rounded = false;    // its values change
};

// The 16-bit type of the model.
DType half_type_of(const Json& config) {
  const std::string type = config.value("dtype", config.value("torch_dtype", Json())).dump();
  return type.find("bfloat16") != std::string::npos ? DType::kBF16 : DType::kF16;
}

bool same_activations(const ActivationFormatPtr& a, const ActivationFormatPtr& b) {
  if (a == nullptr || b == nullptr) return a == b;
  return a->descriptor() == b->descriptor() && std::ranges::equal(a->fixed(), b->fixed());
}

class Converter {
 public:
  Converter(const Checkpoint& source, const ConvertOptions& options, const ProgressSink& progress)
      : source_(source),
        options_(options),
        target_(find_convert_target(options.target)),
        progress_(progress) {
    report_.from = source.convention();
    report_.to = target_.name;
  }

  ConvertReport run(const std::filesystem::path& destination) {
    StagedDirectory stage(destination, "nibble convert\n");
    list();
    choose();
    write(stage.path());
    compare(stage.path());
    stage.commit();
    report();
    return std::move(report_);
  }

 private:
  void list();
  void choose();
  std::string plan_modules(bool may_round);
  std::string plan_module(const std::string& name, bool may_round);
  ExactForm kept(const QuantTensor& weight, const QuantizedModule& module) const;
  void plan_rounding(PlannedModule& planned) const;
  QuantTensor converted(const PlannedModule& planned) const;
  std::vector<StoredTensor> tensors_of(const QuantizedModule& module) const;
  std::vector<std::string> plain_linears() const;
  Json quantization_config() const;
  Json model_config() const;
  void write(const std::filesystem::path& directory);
  void write_module(ShardedWriter& writer, const PlannedModule& planned) const;
  void compare(const std::filesystem::path& directory);
  void compare_module(const Checkpoint& written, PlannedModule& planned) const;
  void report();

  void step(const char* what, std::size_t done) const {
    progress(progress_, what, static_cast<std::int64_t>(done),
             static_cast<std::int64_t>(names_.size()));
  }

  const Checkpoint& source_;
  const ConvertOptions& options_;
  const ConvertTarget& target_;
  const ProgressSink& progress_;
  ConvertReport report_;
  const WeightEncoding* encoding_ = nullptr;  // null: plain weights
  std::vector<std::string> names_;            // quantized modules
  std::vector<std::string> copied_;           // tensors that belong to none of them
  std::vector<PlannedModule> modules_;        // as names_
};

// Which modules are quantized, and what is copied.
void Converter::list() {
  SourceModules modules = list_modules(source_);
  names_ = std::move(modules.quantized);
  copied_ = std::move(modules.plain);
  if (names_.empty() && !target_.encodings.empty()) {
    fail(ErrorKind::kUsage,
         "{}: it has no quantized weights to convert; `nibble quantize` makes them",
         source_.path().string());
  }
  report_.modules = static_cast<std::int64_t>(names_.size());
}

// The encoding that keeps the whole model; if there is none and rounding is allowed, the first.
void Converter::choose() {
  std::vector<const WeightEncoding*> candidates = target_.encodings;
  if (candidates.empty()) candidates = {nullptr};
  const auto rounds = [&](const std::string& name) { return source_.activations(name) != nullptr; };
  if (std::ranges::any_of(names_, rounds)) std::ranges::reverse(candidates);
  std::string refusal;
  for (const WeightEncoding* candidate : candidates) {
    encoding_ = candidate;
    const std::string reason = plan_modules(/*may_round=*/false);
    if (reason.empty()) return;
    if (refusal.empty()) refusal = reason;
  }
  if (!options_.requantize) {
    fail(ErrorKind::kUnsupported,
         "{}; --requantize gives up what {} cannot keep, and reports what that costs", refusal,
         target_.name);
  }
  encoding_ = target_.encodings.empty() ? nullptr : target_.encodings.front();
  plan_modules(/*may_round=*/true);
}

// How every module will be stored; why one cannot be, if that is not to be.
std::string Converter::plan_modules(bool may_round) {
  modules_.clear();
  for (const std::string& name : names_) {
    step("plan", modules_.size());
    if (std::string refusal = plan_module(name, may_round); !refusal.empty()) return refusal;
  }
  return "";
}

std::string Converter::plan_module(const std::string& name, bool may_round) {
  const QuantTensor weight = source_.linear(name);
  PlannedModule planned;
  QuantizedModule& stored = planned.stored;
  stored = {name,        weight.format,       weight.rows,
            weight.cols, !is_embedding(name), source_.activations(name)};
  ExactForm form = kept(weight, stored);
  if (!form.weight.has_value() && !may_round) {
    return fmt::format("module '{}': {} cannot keep {}: {}", name, target_.name,
                       weight.format->name(), form.refusal);
  }
  if (!form.weight.has_value() && stored.activations != nullptr) {
    QuantizedModule without = stored;
    without.activations = nullptr;
    form = kept(weight, without);
    if (form.weight.has_value()) stored = without;
  }
  if (form.weight.has_value()) {
    stored.format = form.weight->format;
  } else {
    plan_rounding(planned);
  }
  modules_.push_back(std::move(planned));
  return "";
}

// The weight as the target stores it with every value kept, or why there is none.
ExactForm Converter::kept(const QuantTensor& weight, const QuantizedModule& module) const {
  if (encoding_ != nullptr && weight.format->is_float()) {
    return {std::nullopt,
            "it is decoded when it is loaded (act-order and the like), and of the "
            "conventions only hf holds the decoded values"};
  }
  if (encoding_ != nullptr) return exact_form(weight, module, *encoding_);
  if (module.activations != nullptr) {
    return {std::nullopt, "plain weights say nothing about activations"};
  }
  return {plain_form(weight), ""};
}

// A format that the target has, for a module that it cannot keep.
void Converter::plan_rounding(PlannedModule& planned) const {
  planned.rounded = true;
  QuantizedModule& stored = planned.stored;
  const std::string& text = options_.format.empty() ? target_.fallback_format : options_.format;
  std::string refusal = "it says nothing about weights";
  // Scales are of the 16-bit type of the checkpoint, unless the target has F16 alone.
  for (const DType half : {half_type_of(source_.config()), DType::kF16}) {
    const FormatPtr wanted = with_half_scales(parse_model_format(text), half).weights;
    if (wanted == nullptr) continue;
    const FormatPtr fitting = fitting_format(wanted, stored.rows, stored.cols);
    stored.format = fitting != nullptr ? fitting : wanted;
    refusal = fitting != nullptr ? encoding_->why_not(*fitting)
                                 : wanted->why_not(stored.rows, stored.cols);
    if (refusal.empty()) break;
  }
  if (!refusal.empty()) {
    fail(ErrorKind::kUsage, "module '{}' cannot become {} in {}: {}; choose another --format",
         stored.module, text, target_.name, refusal);
  }
  if (stored.activations != nullptr && !encoding_->why_no_activations(stored).empty()) {
    stored.activations = nullptr;
  }
}

QuantTensor Converter::converted(const PlannedModule& planned) const {
  const QuantTensor weight = source_.linear(planned.stored.module);
  if (!planned.rounded) return std::move(*kept(weight, planned.stored).weight);
  std::vector<float> values(static_cast<std::size_t>(weight.rows * weight.cols));
  decode_all(weight, values.data(), options_.codec);
  return planned.stored.format->encode(values.data(), weight.rows, weight.cols, options_.codec);
}

std::vector<StoredTensor> Converter::tensors_of(const QuantizedModule& m) const {
  if (encoding_ != nullptr) return encoding_->plan(m);
  return {{m.module + ".weight", m.format->descriptor().element.float_type, {m.rows, m.cols}}};
}

void Converter::write(const std::filesystem::path& directory) {
  std::vector<StoredTensor> plan;
  for (const std::string& name : copied_) {
    const Tensor tensor = source_.tensor(name);
    plan.push_back({name, tensor.dtype(), tensor.shape()});
  }
  for (const PlannedModule& m : modules_) {
    const std::vector<StoredTensor> tensors = tensors_of(m.stored);
    plan.insert(plan.end(), tensors.begin(), tensors.end());
  }
  const Json quantization = quantization_config();
  ShardedWriter writer(directory, plan);
  for (const std::string& name : copied_) writer.write(name, source_.tensor(name));
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    step("write", i);
    write_module(writer, modules_[i]);
  }
  writer.finish();
  for (const StoredTensor& t : plan) report_.bytes += static_cast<std::int64_t>(t.byte_size());
  write_config(directory, model_config(), quantization);
  copy_companions(source_, directory);
}

void Converter::write_module(ShardedWriter& writer, const PlannedModule& planned) const {
  const QuantizedModule& stored = planned.stored;
  const QuantTensor weight = converted(planned);
  if (encoding_ == nullptr) {
    writer.write(stored.module + ".weight", weight.planes[0]);
    return;
  }
  for (const auto& [name, tensor] : encoding_->encode(stored.module, weight)) {
    writer.write(name, tensor);
  }
  if (!stored.has_static_input()) return;
  for (const auto& [name, tensor] : input_scales(stored.module, *stored.activations)) {
    writer.write(name, tensor);
  }
}

// Matrices left plain that are, as far as names tell, linear layers; and the head, of which a tied
// model has no tensor.
std::vector<std::string> Converter::plain_linears() const {
  std::set<std::string> plain;
  for (const std::string& name : copied_) {
    if (!name.ends_with(".weight") || is_embedding(module_of(name))) continue;
    if (source_.tensor(name).shape().size() == 2) plain.insert(module_of(name));
  }
  if (std::ranges::find(names_, "lm_head") == names_.end()) plain.insert("lm_head");
  return {plain.begin(), plain.end()};
}

Json Converter::quantization_config() const {
  if (encoding_ == nullptr) return nullptr;
  std::vector<QuantizedModule> stored;
  for (const PlannedModule& m : modules_) stored.push_back(m.stored);
  Json config = encoding_->quantization_config(stored, plain_linears());
  // Scales of keys and values are tensors that were copied; this says what they are.
  const Json source = source_.config().value("quantization_config", Json::object());
  const Json transforms = source.is_object() ? source.value("transform_config", Json()) : Json();
  if (!transforms.empty()) config["transform_config"] = transforms;
  if (config.contains("kv_cache_scheme") && source.is_object()) {
    config["kv_cache_scheme"] = source.value("kv_cache_scheme", Json());
  }
  return config;
}

// Plain weights that are wider than the model's type would be rounded to it by whoever loads them.
Json Converter::model_config() const {
  Json config = source_.config();
  if (encoding_ != nullptr || modules_.empty()) return config;
  std::set<DType> types;
  for (const PlannedModule& m : modules_) {
    types.insert(m.stored.format->descriptor().element.float_type);
  }
  const DType type = types.size() == 1 ? *types.begin() : DType::kF32;
  const char* name = type == DType::kF32 ? "float32" : type == DType::kF16 ? "float16" : "bfloat16";
  // The key was renamed; whoever knows the new one takes the old one too.
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] = name;
  return config;
}

// What was written is read again and held against the source.
void Converter::compare(const std::filesystem::path& directory) {
  const auto written = open_checkpoint(directory);
  for (const std::string& name : copied_) {
    const Tensor copy = written->tensor(name), original = source_.tensor(name);
    if (copy.dtype() != original.dtype() || copy.shape() != original.shape() ||
        !std::ranges::equal(copy.bytes(), original.bytes())) {
      fail(ErrorKind::kInternal, "tensor '{}' was not copied as it is", name);
    }
  }
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    step("compare", i);
    compare_module(*written, modules_[i]);
  }
}

void Converter::compare_module(const Checkpoint& written, PlannedModule& planned) const {
  const QuantizedModule& stored = planned.stored;
  if (!same_activations(written.activations(stored.module), stored.activations)) {
    fail(ErrorKind::kUnsupported, "module '{}': {} cannot keep what its inputs are rounded to",
         stored.module, target_.name);
  }
  const QuantTensor weight = written.linear(stored.module);
  if (planned.rounded) return;
  const std::string changes = difference(weight, source_.linear(stored.module));
  if (changes.empty()) return;
  if (!options_.requantize) {
    fail(ErrorKind::kUnsupported,
         "module '{}': {} cannot keep {}: {}; --requantize accepts that, and reports what it costs",
         stored.module, target_.name, stored.format->name(), changes);
  }
  planned.rounded = true;
}

void Converter::report() {
  for (const PlannedModule& m : modules_) {
    const std::string& name = m.stored.module;
    if (m.rounded) report_.requantized.push_back(name);
    if (m.stored.activations == nullptr && source_.activations(name) != nullptr) {
      report_.dropped_activations.push_back(name);
    }
  }
}

}  // namespace

const std::vector<ConvertTarget>& convert_targets() {
  static const std::vector<ConvertTarget> targets = {
      {"compressed-tensors",
       {&compressed_tensors_encoding(), &compressed_tensors_typed_encoding()},
       "w4a16_g128"},
      {"gptq", {&gptq_encoding()}, "w4a16_g128_sym"},
      {"gptq_v2", {&gptq_v2_encoding()}, "w4a16_g128"},
      {"awq", {&awq_encoding()}, "w4a16_g128"},
      {"bnb", {&bnb_encoding()}, "nf4"},
      {"exl2", {&exl2_encoding()}, "mixed_4g128"},
      {"exl3", {&exl3_encoding()}, "trellis4_exl3"},
      {"fp8", {&fp8_encoding()}, "fp8_e4m3_b128x128_sf32"},
      {"modelopt", {&modelopt_encoding()}, "nvfp4"},
      {"nibble", {&nibble_encoding()}, "w4a16_g128"},
      {"hf", {}, ""},
      {"gguf", {}, "q8_0", convert_to_gguf},
  };
  return targets;
}

const ConvertTarget& find_convert_target(const std::string& name) {
  const auto& all = convert_targets();
  const auto found = std::ranges::find(all, name, &ConvertTarget::name);
  if (found != all.end()) return *found;
  std::string names;
  for (const ConvertTarget& target : all) names += (names.empty() ? "" : ", ") + target.name;
  fail(ErrorKind::kUsage, "no convention '{}' to convert to; there are {}", name, names);
}

namespace {

void refuse_input_transforms(const Checkpoint& source, const std::string& target) {
  if (target == "compressed-tensors" || target == "nibble") return;
  for (const std::string& name : source.names()) {
    if (source.input_hadamard(module_of(name)) == 0) continue;
    fail(ErrorKind::kUnsupported,
         "module '{}': its input is multiplied by a Hadamard matrix, which {} cannot say; convert "
         "to compressed-tensors or nibble",
         module_of(name), target);
  }
}

}  // namespace

ConvertReport convert_checkpoint(const Checkpoint& source, const std::filesystem::path& destination,
                                 const ConvertOptions& options, const ProgressSink& progress) {
  const ConvertTarget& target = find_convert_target(options.target);
  refuse_input_transforms(source, target.name);
  if (target.convert != nullptr) return target.convert(source, destination, options, progress);
  return Converter(source, options, progress).run(destination);
}

}  // namespace nibble
