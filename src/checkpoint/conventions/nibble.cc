// Our extension for what compressed-tensors cannot say: a Hugging Face directory with quant_method
// "nibble". config.json holds the descriptor of each format once and the format and shape of each
// module; every canonical plane is a tensor "<module>.weight.<plane>" (docs/formats.md).
#include <algorithm>
#include <map>

#include "checkpoint/encoding.h"
#include "checkpoint/hf_directory.h"
#include "checkpoint/input_scales.h"
#include "checkpoint/nibble_descriptor.h"
#include "formats/mixed_format.h"
#include "formats/registry.h"
#include "formats/split_format.h"

namespace nibble {
namespace {

constexpr const char* kMethod = "nibble";
constexpr int kVersion = 1;

class NibbleModules final : public QuantizedModules {
 public:
  explicit NibbleModules(std::shared_ptr<const HfDirectory> directory)
      : directory_(std::move(directory)), what_((directory_->path / "config.json").string()) {
    const Json& config = directory_->config.at("quantization_config");
    if (config.value("version", Json()) != kVersion) {
      fail(ErrorKind::kUnsupported, "{}: version of quant_method 'nibble' is not {}", what_,
           kVersion);
    }
    const Json formats = config.value("formats", Json());
    const Json modules = config.value("modules", Json());
    if (!formats.is_array() || !modules.is_object()) {
      fail(ErrorKind::kCorrupt,
           "{}: quantization_config needs a list 'formats' and an object "
           "'modules'",
           what_);
    }
    for (const Json& format : formats) {
      const std::string where = fmt::format("{}: formats[{}]", what_, formats_.size());
      formats_.push_back(make_format(descriptor_from_json(format, where)));
    }
    for (const auto& [name, module] : modules.items()) add(name, module);
  }

  bool has(const std::string& module) const override { return modules_.contains(module); }

  ActivationFormatPtr activations(const std::string& module) const override {
    return modules_.at(module).activations;
  }

  QuantTensor read(const std::string& module) const override {
    const QuantizedModule& m = modules_.at(module);
    QuantTensor weight{m.format, m.rows, m.cols, {}};
    if (const std::string reason = m.format->why_not(m.rows, m.cols); !reason.empty()) {
      fail(ErrorKind::kCorrupt, "{}: module '{}': {}", what_, module, reason);
    }
    for (const PlaneSpec& plane : m.format->planes(m.rows, m.cols)) {
      weight.planes.push_back(directory_->files.tensor(module + ".weight." + plane.name));
    }
    validate(weight);
    if (m.format->descriptor().element.kind == ElementKind::kIntSplit) outlier_columns(weight);
    if (m.format->is_mixed()) check_mixed_planes(weight, "module '" + module + "'");
    return weight;
  }

 private:
  void add(const std::string& name, const Json& module) {
    const auto is_index = [](const Json& j) { return j.is_number_unsigned(); };
    const Json format = module.is_object() ? module.value("format", Json()) : Json();
    const Json shape = module.is_object() ? module.value("shape", Json()) : Json();
    if (!is_index(format) || format.get<std::uint64_t>() >= formats_.size() || !shape.is_array() ||
        shape.size() != 2 || !std::ranges::all_of(shape, is_index)) {
      fail(ErrorKind::kCorrupt,
           "{}: module '{}' needs the index of a format and a shape [rows, "
           "cols]",
           what_, name);
    }
    constexpr std::uint64_t kMaxDim = std::uint64_t{1} << 40;
    if (std::ranges::any_of(shape, [](const Json& j) {
          return j.get<std::uint64_t>() < 1 || j.get<std::uint64_t>() > kMaxDim;
        })) {
      fail(ErrorKind::kCorrupt, "{}: module '{}' has the shape {}", what_, name, shape.dump());
    }
    modules_[name] = {name, formats_[format.get<std::size_t>()], shape[0].get<std::int64_t>(),
                      shape[1].get<std::int64_t>()};
    if (module.contains("activations")) {
      modules_[name].activations = read_activations(module.at("activations"), name);
    }
  }

  ActivationFormatPtr read_activations(const Json& json, const std::string& name) const {
    const Json format = json.is_object() ? json.value("format", Json()) : Json();
    if (!format.is_string()) {
      fail(ErrorKind::kCorrupt, "{}: module '{}': activations need a format", what_, name);
    }
    const ActivationFormatPtr parsed = parse_activation_format(format.get<std::string>());
    if (parsed == nullptr || !parsed->descriptor().is_static) return parsed;
    return read_input_scales(directory_->files, name, modules_.at(name).cols, *parsed);
  }

  std::shared_ptr<const HfDirectory> directory_;
  std::string what_;
  std::vector<FormatPtr> formats_;
  std::map<std::string, QuantizedModule> modules_;
};

class NibbleEncoding final : public WeightEncoding {
 public:
  std::string convention() const override { return kMethod; }

  std::string why_not(const Format& format) const override {
    if (format.is_two_sided()) return format.name() + " is for EXL3 alone";
    return format.is_float() ? format.name() + " is stored plain" : "";
  }

  std::string why_no_activations(const QuantizedModule& /*module*/) const override { return ""; }

  std::vector<StoredTensor> plan(const QuantizedModule& m) const override {
    std::vector<StoredTensor> tensors;
    for (const PlaneSpec& plane : m.format->planes(m.rows, m.cols)) {
      tensors.push_back({m.module + ".weight." + plane.name, plane.dtype, plane.shape});
    }
    plan_input_scales(m, tensors);
    return tensors;
  }

  std::vector<std::pair<std::string, Tensor>> encode(const std::string& module,
                                                     const QuantTensor& weight) const override {
    std::vector<std::pair<std::string, Tensor>> tensors;
    const std::vector<PlaneSpec> planes = weight.format->planes(weight.rows, weight.cols);
    for (std::size_t i = 0; i < planes.size(); ++i) {
      tensors.emplace_back(module + ".weight." + planes[i].name, weight.planes[i]);
    }
    return tensors;
  }

  Json quantization_config(const std::vector<QuantizedModule>& modules,
                           const std::vector<std::string>& /*plain*/) const override {
    std::vector<FormatPtr> formats;
    Json listed = Json::array(), entries = Json::object();
    for (const QuantizedModule& m : modules) {
      const auto same = [&](const FormatPtr& f) {
        return f->descriptor() == m.format->descriptor();
      };
      auto found = std::ranges::find_if(formats, same);
      if (found == formats.end()) {
        found = formats.insert(found, m.format);
        listed.push_back(to_json(m.format->descriptor()));
      }
      entries[m.module] = {{"format", found - formats.begin()}, {"shape", {m.rows, m.cols}}};
      if (m.activations == nullptr) continue;
      entries[m.module]["activations"] = {{"format", m.activations->name()}};
    }
    return {{"quant_method", kMethod},
            {"version", kVersion},
            {"formats", std::move(listed)},
            {"modules", std::move(entries)}};
  }
};

}  // namespace

bool probe_nibble(const std::filesystem::path& path) { return quant_method_of(path) == kMethod; }

std::unique_ptr<Checkpoint> open_nibble(const std::filesystem::path& path) {
  auto directory = open_hf_directory(path);
  auto modules = std::make_unique<NibbleModules>(directory);
  return make_hf_checkpoint(kMethod, std::move(directory), std::move(modules));
}

const WeightEncoding& nibble_encoding() {
  static const NibbleEncoding encoding;
  return encoding;
}

}  // namespace nibble
