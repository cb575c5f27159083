#include "checkpoint/gguf_plan.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "base/error.h"
#include "checkpoint/gguf_preset.h"
#include "checkpoint/source_modules.h"
#include "formats/block_forms.h"
#include "formats/registry.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

struct KeptForm {
  GgufType type;
  float scale = 1;      // that all values stand under
  std::string refusal;  // why there is none
};

// The types that --format may name.
GgufType type_named(const std::string& name) {
  const FormatPtr format = parse_model_format(name).weights;
  const bool known = format != nullptr && (format->is_float() || format->is_block());
  if (!known) {
    fail(ErrorKind::kUsage,
         "gguf: weights of '{}'; of formats GGUF has f32, f16, bf16 and ggml's blocks (q4_k, "
         "iq4_xs, ...)",
         name);
  }
  const Element& element = format->descriptor().element;
  if (format->is_block()) return gguf_type_of(element.block);
  return gguf_type_of(element.float_type).value();
}

class GgufPlanner {
 public:
  GgufPlanner(const Checkpoint& source, const ConvertOptions& options, const GgufKeys& keys,
              ConvertReport& report, const ProgressSink& progress)
      : source_(source), options_(options), keys_(keys), report_(report), progress_(progress) {}

  GgufPlan run() {
    choose_mixture();
    plan();
    plan_.file_type = file_type();
    return std::move(plan_);
  }

 private:
  void choose_mixture();
  void plan();
  void plan_place(const GgufPlace& place);
  void plan_matrix(PlannedTensor& planned);
  KeptForm kept_form(const GgufPlace& place) const;
  void plan_quantized(PlannedTensor& planned);
  GgufType wanted(const PlannedTensor& planned) const;
  std::uint32_t file_type() const;

  const Checkpoint& source_;
  const ConvertOptions& options_;
  const GgufKeys& keys_;
  ConvertReport& report_;
  const ProgressSink& progress_;
  GgufMixture mixture_;
  std::optional<GgufType> format_;
  GgufPlan plan_;
};

void GgufPlanner::choose_mixture() {
  if (!options_.preset.empty() && !options_.format.empty()) {
    fail(ErrorKind::kUsage, "gguf: a preset and a format; choose one of them");
  }
  if (!options_.preset.empty()) mixture_.preset = &find_gguf_preset(options_.preset);
  if (!options_.format.empty()) format_ = type_named(options_.format);
  mixture_.layers = keys_.layers;
  mixture_.heads = keys_.heads;
  mixture_.kv_heads = keys_.kv_heads;
  mixture_.experts = keys_.experts;
  mixture_.is_llama = keys_.arch->name == std::string_view("llama");
  mixture_.has_imatrix = options_.imatrix != nullptr;
}

void GgufPlanner::plan() {
  GgufLayout layout = gguf_layout(source_, *keys_.arch);
  report_.left_out = std::move(layout.left_out);
  std::ranges::copy(keys_.ignored, std::back_inserter(report_.left_out));
  const auto named = [&](const char* name) {
    return std::ranges::find(layout.places, name, &GgufPlace::name);
  };
  mixture_.has_output = named("output.weight") != layout.places.end();
  if (named("token_embd.weight") == layout.places.end()) {
    fail(ErrorKind::kCorrupt, "{}: no embedding of tokens", source_.path().string());
  }
  for (const GgufPlace& place : layout.places) {
    plan_place(place);
    const auto done = static_cast<std::int64_t>(plan_.tensors.size());
    progress(progress_, "plan", done, done);
  }
}

void GgufPlanner::plan_place(const GgufPlace& place) {
  PlannedTensor planned{place, {}, gguf_type_of(DType::kF32).value()};
  const std::string& module = place.modules.front();
  planned.quantized = !place.bias && is_quantized(source_, module);
  const std::string tensor = module + (place.bias ? ".bias" : ".weight");
  if (planned.quantized || source_.tensor(tensor).shape().size() == 2) {
    plan_matrix(planned);
  } else {
    planned.shape = source_.tensor(tensor).shape();
    if (planned.shape.size() != 1 || place.modules.size() != 1) {
      fail(ErrorKind::kUnsupported, "tensor '{}': {} in a GGUF file", tensor,
           to_string(planned.shape));
    }
  }
  plan_.tensors.push_back(std::move(planned));
}

void GgufPlanner::plan_matrix(PlannedTensor& planned) {
  std::int64_t rows = 0, cols = 0;
  for (const std::string& module : planned.place.modules) {
    if (is_quantized(source_, module) != planned.quantized) {
      fail(ErrorKind::kUnsupported, "'{}': some of its experts are quantized, others are not",
           planned.place.name);
    }
    const QuantTensor weight = gguf_weight(source_, module, planned.place.change);
    if (rows != 0 && (weight.rows != rows || weight.cols != cols)) {
      fail(ErrorKind::kCorrupt, "'{}': experts of different shapes", planned.place.name);
    }
    rows = weight.rows;
    cols = weight.cols;
    if (source_.activations(module) != nullptr) report_.dropped_activations.push_back(module);
  }
  planned.shape = {rows, cols};
  const bool stacked = planned.place.name.find("_exps.") != std::string::npos;
  const auto experts = static_cast<std::int64_t>(planned.place.modules.size());
  if (stacked) planned.shape.insert(planned.shape.begin(), experts);
  if (!planned.quantized) {
    const DType dtype = source_.tensor(planned.place.modules.front() + ".weight").dtype();
    if (!gguf_can_quantize(planned.place.name, planned.shape.size())) return;  // F32
    planned.type = asks_for_types(options_) ? wanted(planned) : gguf_type_of(dtype).value();
    planned.rounded = planned.type.block.has_value();
    return;
  }
  report_.modules += experts;
  plan_quantized(planned);
}

// The type of blocks that holds every value of all modules of a tensor.
KeptForm GgufPlanner::kept_form(const GgufPlace& place) const {
  KeptForm kept;
  for (const std::string& module : place.modules) {
    const QuantTensor weight = source_.linear(module);
    const auto form = block_form_of(weight);
    if (!form)
      return {{},
              1,
              fmt::format("module '{}': no type of GGUF has the values of {}", module,
                          weight.format->name())};
    const BlockType type = form->weight.format->descriptor().element.block;
    if (module == place.modules.front()) {
      kept = {gguf_type_of(type), form->tensor_scale, ""};
    } else if (kept.type.id != layout_of(type).id || form->tensor_scale != 1 || kept.scale != 1) {
      return {{}, 1, fmt::format("'{}': experts of several types or scales", place.name)};
    }
  }
  return kept;
}

// Blocks with the same values; what is wanted instead, if values may change.
void GgufPlanner::plan_quantized(PlannedTensor& planned) {
  if (!(options_.requantize && asks_for_types(options_))) {
    const KeptForm kept = kept_form(planned.place);
    if (kept.refusal.empty()) {
      planned.type = kept.type;
      if (kept.scale != 1) plan_.scales[planned.place.name] = kept.scale;
      return;
    }
    const bool asks_floats = format_ && !format_->block;  // perhaps exact as those
    if (!options_.requantize && !asks_floats) {
      fail(ErrorKind::kUnsupported,
           "{}; --requantize gives up what gguf cannot keep, and reports what that costs",
           kept.refusal);
    }
  }
  planned.type = asks_for_types(options_) ? wanted(planned) : gguf_type_of(BlockType::kQ8_0);
  planned.rounded = planned.type.block.has_value();
}

// The type that the preset or the format gives a matrix.
GgufType GgufPlanner::wanted(const PlannedTensor& planned) const {
  const std::int64_t cols = planned.shape.back();
  if (mixture_.preset != nullptr) {
    return gguf_type_in(mixture_, planned.place.name, planned.place.layer, cols);
  }
  if (cols % format_->elements() != 0) {
    fail(ErrorKind::kUsage,
         "'{}': blocks of {} do not divide {} columns; a preset takes another "
         "type for such rows",
         planned.place.name, format_->elements(), cols);
  }
  return *format_;
}

// general.file_type says what most weights have, or which preset.
std::uint32_t GgufPlanner::file_type() const {
  if (mixture_.preset != nullptr) return mixture_.preset->file_type;
  std::map<std::uint32_t, std::int64_t> elements;
  for (const PlannedTensor& t : plan_.tensors) elements[t.type.id] += element_count(t.shape);
  const auto most =
      std::ranges::max_element(elements, {}, &std::pair<const std::uint32_t, std::int64_t>::second);
  return gguf_file_type_of(gguf_type_of_id(most->first).value());
}

}  // namespace

bool asks_for_types(const ConvertOptions& options) {
  return !options.preset.empty() || !options.format.empty();
}

QuantTensor gguf_weight(const Checkpoint& source, const std::string& module, GgufChange change) {
  if (change == GgufChange::kTransposed && !is_quantized(source, module)) {
    return dense(transposed(source.tensor(module + ".weight")));
  }
  return source.linear(module);
}

GgufPlan plan_gguf(const Checkpoint& source, const ConvertOptions& options, const GgufKeys& keys,
                   ConvertReport& report, const ProgressSink& progress) {
  return GgufPlanner(source, options, keys, report, progress).run();
}

}  // namespace nibble
