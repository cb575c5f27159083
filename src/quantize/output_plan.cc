#include "quantize/output_plan.h"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>

#include "base/error.h"
#include "checkpoint/name_pattern.h"
#include "model/fused_experts.h"

namespace nibble {
namespace {

// The formats of modules, and what had to give way.
class FormatChooser {
 public:
  FormatChooser(const std::vector<FormatOverride>& overrides, DType half, bool scale_type_open)
      : half_(half), scale_type_open_(scale_type_open) {
    for (const FormatOverride& entry : overrides) {
      overrides_.push_back({compile(entry.pattern), &entry, false});
    }
  }

  // The override for a module, or null.
  FormatPtr find_override(const std::string& module) {
    for (Entry& entry : overrides_) {
      if (!entry.pattern.matches(module)) continue;
      entry.used = true;
      return entry.source->format;
    }
    return nullptr;
  }

  // `wanted` with the checkpoint's type of scales, made to fit; `stored` when nothing fits.
  FormatPtr fit(const PlannedModule& module, FormatPtr wanted, const FormatPtr& stored) {
    if (wanted->is_float()) return wanted;
    // F16 is what a name without a type of scales stands for.
    if (scale_type_open_ && wanted->descriptor().scheme.scale_type == DType::kF16) {
      wanted = with_scale_type(wanted, half_);
    }
    const std::string reason = wanted->why_not(module.rows, module.cols);
    if (reason.empty()) return wanted;
    if (const FormatPtr smaller = fitting_format(wanted, module.rows, module.cols)) {
      ++fallbacks_[fmt::format("{}: {} instead", reason, smaller->name())];
      return smaller;
    }
    ++fallbacks_[fmt::format("{}: left as {}", reason, stored->name())];
    return stored;
  }

  std::vector<std::string> notes() const {
    std::vector<std::string> result;
    for (const auto& [text, count] : fallbacks_) {
      result.push_back(fmt::format("{} module{}: {}", count, count == 1 ? "" : "s", text));
    }
    return result;
  }

  void expect_all_used() const {
    for (const Entry& entry : overrides_) {
      if (!entry.used) {
        fail(ErrorKind::kUsage, "override '{}': matches no module of this model",
             entry.source->pattern);
      }
    }
  }

 private:
  struct Entry {
    NamePattern pattern;
    const FormatOverride* source;
    bool used;
  };

  // Found anywhere in the name, unless the expression is anchored.
  static NamePattern compile(const std::string& pattern) {
    try {
      return NamePattern("re:.*(?:" + pattern + ")");
    } catch (const Error& error) {
      fail(ErrorKind::kUsage, "override '{}': {}", pattern, error.what());
    }
  }

  DType half_;
  bool scale_type_open_;
  std::vector<Entry> overrides_;
  std::map<std::string, int> fallbacks_;
};

void require_plain(const QuantTensor& weight, const std::string& module) {
  if (weight.format->is_float()) return;
  fail(ErrorKind::kUnsupported,
       "module '{}' is stored as {} already; quantize from the 16-bit checkpoint it was made from",
       module, weight.format->name());
}

class Planner {
 public:
  Planner(const ModelSpec& spec, const Checkpoint& source, const ModelFormat& format,
          const ModuleFormats& chosen, FormatChooser& chooser, Backend& backend)
      : spec_(spec),
        source_(source),
        format_(format),
        chosen_(chosen),
        chooser_(chooser),
        backend_(backend) {}

  OutputPlan run() {
    for (std::int64_t layer = 0; layer < spec_.layers; ++layer) add_layer(layer);
    add_outside();
    chooser_.expect_all_used();
    plan_.notes = chooser_.notes();
    const auto quantized = plan_.quantized();
    if (!quantized.empty()) plan_.encoding = &choose_encoding(quantized);
    list_tensors();
    sum_up();
    return std::move(plan_);
  }

 private:
  void add_layer(std::int64_t layer) {
    LayerWeights weights = load_layer(spec_, layer, source_, backend_);
    for (const Linear* linear : weights.linears()) {
      const QuantTensor& weight = linear->weight.canonical;
      require_plain(weight, linear->module);
      add_module({linear->module, layer, weight.rows, weight.cols, nullptr}, weight.format,
                 format_.weights);
      written_.insert(linear->module + ".weight");
      if (!linear->bias.empty()) add_bias(*linear, weight.format->descriptor().element.float_type);
    }
    for (const Norm* norm : weights.norms()) {
      for (const std::string& name :
           {stored_norm_weight(source_, norm->module), stored_norm_bias(source_, norm->module)}) {
        if (!name.empty()) add_float(name);
      }
    }
    if (weights.router.exists()) add_float(weights.router.module + ".weight");
  }

  // Embedding and head, when they are asked for.
  void add_outside() {
    const EmbeddingWeights embedding = load_embedding(spec_, source_, backend_);
    const std::string module = find_prefix(spec_, source_) + spec_.names.embed;
    add_outside_module(module, embedding.table);
    const HeadWeights head = load_head(spec_, embedding, source_, backend_);
    if (head.head.exists() && head.head.module != module) {
      add_outside_module(head.head.module, head.head.weight.canonical);
    }
  }

  void add_outside_module(const std::string& module, const QuantTensor& weight) {
    require_plain(weight, module);
    const FormatPtr chosen = chooser_.find_override(module);
    const FormatPtr wanted = chosen != nullptr ? chosen : format_.embeddings;
    if (wanted == nullptr) return;
    PlannedModule planned{module, -1, weight.rows, weight.cols, nullptr};
    planned.format = chooser_.fit(planned, wanted, weight.format);
    plan_.modules.push_back(planned);
    written_.insert(module + ".weight");
  }

  void add_module(PlannedModule module, const FormatPtr& stored, const FormatPtr& wanted) {
    const FormatPtr overriding = chooser_.find_override(module.module);
    const auto chosen = chosen_.find(module.module);
    module.format = stored;
    if (overriding == nullptr && chosen != chosen_.end()) {
      module.format = chosen->second;
    } else if (overriding != nullptr || wanted != nullptr) {
      module.format = chooser_.fit(module, overriding != nullptr ? overriding : wanted, stored);
    }
    // Inputs are rounded for the sake of products of codes.
    if (!module.format->is_float()) module.activations = format_.activations;
    plan_.modules.push_back(std::move(module));
  }

  // A float tensor that may change its values, not its type.
  void add_float(const std::string& name) {
    const Tensor tensor = source_.tensor(name);
    rewritten_.push_back({name, tensor.dtype(), tensor.shape()});
    written_.insert(name);
  }

  // `type` is that of one which stands in a tensor with others so far.
  void add_bias(const Linear& linear, DType type) {
    const std::string name = linear.module + ".bias";
    if (source_.has(name)) return add_float(name);
    rewritten_.push_back({name, type, linear.bias.shape()});
  }

  void list_tensors() {
    std::map<std::string, StoredTensor> all;
    // Where plain experts stand in one tensor, they are written apart; the whole is left out.
    const std::set<std::string> fused = fused_expert_tensors(spec_, find_prefix(spec_, source_));
    for (const std::string& name : source_.names()) {
      if (written_.contains(name) || fused.contains(name)) continue;
      const Tensor tensor = source_.tensor(name);
      all[name] = {name, tensor.dtype(), tensor.shape()};
      plan_.copied.push_back(name);
    }
    for (const StoredTensor& tensor : rewritten_) all[tensor.name] = tensor;
    for (PlannedModule& module : plan_.modules) {
      for (const StoredTensor& tensor : stored_tensors(module)) {
        all[tensor.name] = tensor;
        module.bytes += static_cast<std::int64_t>(tensor.byte_size());
      }
      if (module.layer >= 0) block_bytes_ += static_cast<double>(module.bytes);
    }
    for (auto& [name, tensor] : all) {
      plan_.bytes += static_cast<std::int64_t>(tensor.byte_size());
      plan_.tensors.push_back(std::move(tensor));
    }
  }

  std::vector<StoredTensor> stored_tensors(const PlannedModule& module) const {
    if (!module.format->is_float()) {
      return plan_.encoding->plan({module.module, module.format, module.rows, module.cols,
                                   module.layer >= 0, module.activations});
    }
    Shape shape = {module.rows, module.cols};
    if (spec_.transposed_linears && module.layer >= 0) std::swap(shape[0], shape[1]);
    return {{module.module + ".weight", module.format->descriptor().element.float_type, shape}};
  }

  void sum_up() {
    double block_weights = 0;
    double total_weights = 0;
    std::map<std::string, double> by_format;
    for (const PlannedModule& module : plan_.modules) {
      const double count = static_cast<double>(module.rows) * static_cast<double>(module.cols);
      total_weights += count;
      if (module.layer < 0) continue;
      block_weights += count;
      by_format[module.format->name()] += count;
    }
    // Everything else holds one value an element.
    for (const std::string& name : plan_.copied) {
      total_weights += static_cast<double>(source_.tensor(name).elements());
    }
    for (const StoredTensor& tensor : rewritten_) {
      total_weights += static_cast<double>(element_count(tensor.shape));
    }
    plan_.bits_per_weight = block_bytes_ * 8 / block_weights;
    plan_.bits_per_weight_total = static_cast<double>(plan_.bytes) * 8 / total_weights;
    plan_.format = std::ranges::max_element(by_format, {}, [](const auto& entry) {
                     return entry.second;
                   })->first;
  }

  const ModelSpec& spec_;
  const Checkpoint& source_;
  const ModelFormat& format_;
  const ModuleFormats& chosen_;
  FormatChooser& chooser_;
  Backend& backend_;
  OutputPlan plan_;
  std::set<std::string> written_;  // names that are not copied
  std::vector<StoredTensor> rewritten_;
  double block_bytes_ = 0;
};

}  // namespace

const PlannedModule& OutputPlan::find(const std::string& module) const {
  const auto found = std::ranges::find(modules, module, &PlannedModule::module);
  NIBBLE_CHECK(found != modules.end());
  return *found;
}

DType OutputPlan::stored_type(const std::string& tensor) const {
  const auto found = std::ranges::find(tensors, tensor, &StoredTensor::name);
  NIBBLE_CHECK(found != tensors.end());
  return found->dtype;
}

void OutputPlan::adopt(const std::string& module, const LinearFormats& chosen) {
  const auto found = std::ranges::find(modules, module, &PlannedModule::module);
  NIBBLE_CHECK(found != modules.end());
  const auto tensors_of = [&](const LinearFormats& formats) {
    std::vector<std::tuple<std::string, DType, Shape>> result;
    for (const StoredTensor& tensor :
         encoding->plan({module, formats.weight, found->rows, found->cols, found->layer >= 0,
                         formats.activations})) {
      result.emplace_back(tensor.name, tensor.dtype, tensor.shape);
    }
    return result;
  };
  if (const std::string reason = encoding->why_not(*chosen.weight); !reason.empty()) {
    fail(ErrorKind::kUnsupported, "module '{}': {} was chosen, but {}", module,
         chosen.weight->name(), reason);
  }
  if (tensors_of(chosen) != tensors_of({found->format, found->activations})) {
    fail(ErrorKind::kUnsupported, "module '{}': {} was chosen, which is stored otherwise than {}",
         module, chosen.weight->name(), found->format->name());
  }
  found->format = chosen.weight;
  found->activations = chosen.activations;
}

ActivationFormatPtr OutputPlan::static_inputs() const {
  const auto found = std::ranges::find_if(modules, [](const PlannedModule& m) {
    return m.activations != nullptr && m.activations->descriptor().is_static;
  });
  return found == modules.end() ? nullptr : found->activations;
}

bool OutputPlan::needs_statistics() const {
  return static_inputs() != nullptr || std::ranges::any_of(modules, [](const PlannedModule& m) {
           const Element& outer = m.format->descriptor().element;
           const Element& element = outer.base != nullptr ? outer.base->element : outer;
           return element.kind == ElementKind::kIntSplit || element.kind == ElementKind::kMixed ||
                  (element.kind == ElementKind::kFitted && element.fit == Fit::kLloydMax);
         });
}

std::vector<QuantizedModule> OutputPlan::quantized() const {
  std::vector<QuantizedModule> result;
  for (const PlannedModule& m : modules) {
    if (m.format->is_float()) continue;
    result.push_back({m.module, m.format, m.rows, m.cols, m.layer >= 0, m.activations});
  }
  return result;
}

std::vector<std::string> OutputPlan::plain(const ModelSpec& spec, const Checkpoint& source,
                                           Backend& backend) const {
  std::vector<std::string> result;
  for (const PlannedModule& m : modules) {
    if (m.format->is_float() && m.layer >= 0) result.push_back(m.module);
  }
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    if (!spec.mlp.has_experts(layer)) continue;
    result.push_back(load_layer(spec, layer, source, backend).router.module);
  }
  const EmbeddingWeights embedding = load_embedding(spec, source, backend);
  const HeadWeights head = load_head(spec, embedding, source, backend);
  for (const Linear* linear : {&embedding.project_in, &head.project_out}) {
    if (linear->exists()) result.push_back(linear->module);
  }
  // A tied head has no tensor of its own, yet loaders make a module of this name.
  for (const std::string& name : spec.names.head) {
    const auto planned = std::ranges::find(modules, name, &PlannedModule::module);
    if (planned == modules.end() || planned->format->is_float()) result.push_back(name);
  }
  return result;
}

OutputPlan plan_output(const ModelSpec& spec, const Checkpoint& source, const ModelFormat& format,
                       const std::vector<FormatOverride>& overrides, Backend& backend,
                       const ModuleFormats& chosen) {
  FormatChooser chooser(overrides, checkpoint_half_type(spec, source),
                        format.scale_type_from_checkpoint);
  return Planner(spec, source, format, chosen, chooser, backend).run();
}

DType checkpoint_half_type(const ModelSpec& spec, const Checkpoint& source) {
  const QuantTensor table = source.linear(find_prefix(spec, source) + spec.names.embed);
  const bool is_bf16 =
      table.format->is_float() && table.format->descriptor().element.float_type == DType::kBF16;
  return is_bf16 ? DType::kBF16 : DType::kF16;
}

std::string stored_norm_weight(const WeightSource& source, const std::string& module) {
  for (const char* suffix : {".weight", ".gamma"}) {
    if (source.has(module + suffix)) return module + suffix;
  }
  return "";
}

std::string stored_norm_bias(const WeightSource& source, const std::string& module) {
  for (const char* suffix : {".bias", ".beta"}) {
    if (source.has(module + suffix)) return module + suffix;
  }
  return "";
}

}  // namespace nibble
