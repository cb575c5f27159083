#include "checkpoint/gguf_convert.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>

#include "base/error.h"
#include "checkpoint/exact_form.h"
#include "checkpoint/gguf_keys.h"
#include "checkpoint/gguf_layout.h"
#include "checkpoint/gguf_preset.h"
#include "checkpoint/gguf_vocabulary.h"
#include "checkpoint/imatrix.h"
#include "checkpoint/source_modules.h"
#include "checkpoint/staged_file.h"
#include "formats/block_forms.h"
#include "formats/registry.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

// Elements that are rounded at a time.
constexpr std::int64_t kChunk = std::int64_t{1} << 22;

struct PlannedTensor {
  GgufPlace place;
  Shape shape;  // there
  GgufType type;
  bool quantized = false;  // in the source
  bool rounded = false;    // its values may change
};

struct KeptForm {
  GgufType type;
  float scale = 1;      // that all values stand under
  std::string refusal;  // why there is none
};

FormatPtr format_of(const GgufType& type) {
  if (type.block) return block_format(*type.block);
  return type.dtype == DType::kF32   ? parse_weight_format("f32")
         : type.dtype == DType::kF16 ? parse_weight_format("f16")
                                     : parse_weight_format("bf16");
}

// Row i of the result is row order[i].
Tensor rows_in_order(const Tensor& rows, const std::vector<std::int64_t>& order) {
  Tensor ordered = Tensor::allocate(rows.dtype(), rows.shape());
  auto* to = static_cast<std::byte*>(ordered.address());
  for (const std::int64_t row : order) {
    const Tensor from = rows.rows(row, row + 1);
    to = std::ranges::copy(from.bytes(), to).out;
  }
  return ordered;
}

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

class GgufConverter {
 public:
  GgufConverter(const Checkpoint& source, const ConvertOptions& options,
                const ProgressSink& progress)
      : source_(source),
        options_(options),
        progress_(progress),
        keys_(keys_for_gguf(source.config(), source.path().string())) {
    report_.from = source.convention();
    report_.to = "gguf";
  }

  ConvertReport run(const std::filesystem::path& destination) {
    StagedFile stage(destination);
    choose_mixture();
    plan();
    write(stage.path(), destination.stem().string());
    compare(stage.path());
    stage.commit();
    return std::move(report_);
  }

 private:
  void choose_mixture();
  void plan();
  void plan_place(const GgufPlace& place);
  void plan_matrix(PlannedTensor& planned);
  KeptForm kept_form(const GgufPlace& place) const;
  void plan_quantized(PlannedTensor& planned);
  bool is_wanted() const { return mixture_.preset != nullptr || format_.has_value(); }
  GgufType wanted(const PlannedTensor& planned) const;
  QuantTensor weight_of(const std::string& module, GgufChange change) const;
  GgufMetadata metadata(const std::string& name);
  std::uint32_t file_type() const;
  void write(const std::filesystem::path& path, const std::string& name);
  void write_vectors(GgufWriter& writer, const PlannedTensor& planned) const;
  void write_weights(GgufWriter& writer, const PlannedTensor& planned) const;
  template <class Put>
  void write_rounded(const PlannedTensor& planned, const QuantTensor& weight, std::size_t expert,
                     const std::vector<std::int64_t>& order, const Put& put) const;
  std::vector<std::int64_t> order_of(const PlannedTensor& planned, std::int64_t rows) const;
  void compare(const std::filesystem::path& path);
  void compare_tensor(const Checkpoint& written, PlannedTensor& planned);
  std::string changes(const Checkpoint& written, const PlannedTensor& planned,
                      const std::string& module) const;

  void step(const char* what, std::size_t done) const {
    progress(progress_, what, static_cast<std::int64_t>(done),
             static_cast<std::int64_t>(tensors_.size()));
  }

  const Checkpoint& source_;
  const ConvertOptions& options_;
  const ProgressSink& progress_;
  ConvertReport report_;
  GgufKeys keys_;
  GgufMixture mixture_;
  std::optional<GgufType> format_;
  std::vector<PlannedTensor> tensors_;
  std::map<std::string, float> scales_;  // of weights in NVFP4, by the name of their scale
};

void GgufConverter::choose_mixture() {
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

void GgufConverter::plan() {
  GgufLayout layout = gguf_layout(source_, *keys_.arch);
  report_.left_out = std::move(layout.left_out);
  std::ranges::move(keys_.ignored, std::back_inserter(report_.left_out));
  const auto named = [&](const char* name) {
    return std::ranges::find(layout.places, name, &GgufPlace::name);
  };
  mixture_.has_output = named("output.weight") != layout.places.end();
  if (named("token_embd.weight") == layout.places.end()) {
    fail(ErrorKind::kCorrupt, "{}: no embedding of tokens", source_.path().string());
  }
  for (const GgufPlace& place : layout.places) {
    plan_place(place);
    step("plan", tensors_.size());
  }
}

void GgufConverter::plan_place(const GgufPlace& place) {
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
  tensors_.push_back(std::move(planned));
}

void GgufConverter::plan_matrix(PlannedTensor& planned) {
  std::int64_t rows = 0, cols = 0;
  for (const std::string& module : planned.place.modules) {
    if (is_quantized(source_, module) != planned.quantized) {
      fail(ErrorKind::kUnsupported, "'{}': some of its experts are quantized, others are not",
           planned.place.name);
    }
    const QuantTensor weight = weight_of(module, planned.place.change);
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
    planned.type = is_wanted() ? wanted(planned) : gguf_type_of(dtype).value();
    planned.rounded = planned.type.block.has_value();
    return;
  }
  report_.modules += experts;
  plan_quantized(planned);
}

// The type of blocks that holds every value of all modules of a tensor.
KeptForm GgufConverter::kept_form(const GgufPlace& place) const {
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
void GgufConverter::plan_quantized(PlannedTensor& planned) {
  if (!(options_.requantize && is_wanted())) {
    const KeptForm kept = kept_form(planned.place);
    if (kept.refusal.empty()) {
      planned.type = kept.type;
      if (kept.scale != 1) scales_[planned.place.name] = kept.scale;
      return;
    }
    const bool asks_floats = format_ && !format_->block;  // perhaps exact as those
    if (!options_.requantize && !asks_floats) {
      fail(ErrorKind::kUnsupported,
           "{}; --requantize gives up what gguf cannot keep, and reports what that costs",
           kept.refusal);
    }
  }
  planned.type = is_wanted() ? wanted(planned) : gguf_type_of(BlockType::kQ8_0);
  planned.rounded = planned.type.block.has_value();
}

// The type that the preset or the format gives a matrix.
GgufType GgufConverter::wanted(const PlannedTensor& planned) const {
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

// [out, in], whatever the source has.
QuantTensor GgufConverter::weight_of(const std::string& module, GgufChange change) const {
  if (change == GgufChange::kTransposed && !is_quantized(source_, module)) {
    return dense(transposed(source_.tensor(module + ".weight")));
  }
  return source_.linear(module);
}

// general.file_type says what most weights have, or which preset.
std::uint32_t GgufConverter::file_type() const {
  if (mixture_.preset != nullptr) return mixture_.preset->file_type;
  std::map<std::uint32_t, std::int64_t> elements;
  for (const PlannedTensor& t : tensors_) elements[t.type.id] += element_count(t.shape);
  const auto most =
      std::ranges::max_element(elements, {}, &std::pair<const std::uint32_t, std::int64_t>::second);
  return gguf_file_type_of(gguf_type_of_id(most->first).value());
}

GgufMetadata GgufConverter::metadata(const std::string& name) {
  GgufMetadata metadata = std::move(keys_.metadata);
  metadata.add("general.type", "model");
  metadata.add("general.name", name);
  metadata.add_u32("general.file_type", file_type());
  metadata.add_u32("general.quantization_version", 2);
  const auto embedding =
      std::ranges::find(tensors_, "token_embd.weight",
                        [](const PlannedTensor& t) -> const std::string& { return t.place.name; });
  const auto documents = tokenizer_documents(source_);
  add_vocabulary(documents, source_.config(), embedding->shape.front(), metadata);
  if (documents.contains("tokenizer.json")) return metadata;
  for (const std::string& file : source_.companion_files()) {  // a tokenizer of another form
    if (file == "tokenizer.model" || file.starts_with("vocab.")) report_.left_out.push_back(file);
  }
  return metadata;
}

void GgufConverter::write(const std::filesystem::path& path, const std::string& name) {
  std::vector<GgufTensor> plan;
  const GgufType f32 = gguf_type_of(DType::kF32).value();
  for (const GgufTable& table : keys_.tables) {
    plan.push_back({table.tensor, f32, {static_cast<std::int64_t>(table.values.size())}});
  }
  for (const PlannedTensor& t : tensors_) plan.push_back({t.place.name, t.type, t.shape});
  for (const auto& [weight, scale] : scales_) {
    plan.push_back({weight.substr(0, weight.rfind('.')) + ".scale", f32, {1}});
  }
  GgufWriter writer(path, metadata(name), std::move(plan));
  for (const GgufTable& table : keys_.tables) {
    writer.write(table.tensor, 0, std::as_bytes(std::span(table.values)));
  }
  for (const auto& [weight, scale] : scales_) {
    writer.write(weight.substr(0, weight.rfind('.')) + ".scale", 0,
                 std::as_bytes(std::span(&scale, 1)));
  }
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    step("write", i);
    tensors_[i].shape.size() == 1 ? write_vectors(writer, tensors_[i])
                                  : write_weights(writer, tensors_[i]);
  }
  writer.sync();
  for (const GgufTensor& t : writer.tensors()) report_.bytes += static_cast<std::int64_t>(t.bytes);
}

// Where each row there is here.
std::vector<std::int64_t> GgufConverter::order_of(const PlannedTensor& planned,
                                                  std::int64_t rows) const {
  const GgufChange change = planned.place.change;
  const std::int64_t heads = change == GgufChange::kKeyRows ? keys_.kv_heads : keys_.heads;
  const bool moves = change == GgufChange::kQueryRows || change == GgufChange::kKeyRows ||
                     change == GgufChange::kQkvRows;
  const std::int64_t parts = change == GgufChange::kQkvRows ? 3 : 2;
  if (moves && (rows % heads != 0 || rows / heads % parts != 0)) {
    fail(ErrorKind::kCorrupt, "'{}': {} rows for {} heads", planned.place.name, rows, heads);
  }
  std::vector<std::int64_t> order(static_cast<std::size_t>(rows));
  for (std::int64_t row = 0; row < rows; ++row) {
    order[static_cast<std::size_t>(moves ? gguf_row(change, row, rows, heads) : row)] = row;
  }
  return order;
}

void GgufConverter::write_vectors(GgufWriter& writer, const PlannedTensor& planned) const {
  const std::string& module = planned.place.modules.front();
  const Tensor values =
      to_float(source_.tensor(module + (planned.place.bias ? ".bias" : ".weight")));
  const std::vector<std::int64_t> order = order_of(planned, values.elements());
  std::vector<float> there;
  for (const std::int64_t row : order) {
    const float value = values.data<float>()[row];
    there.push_back(planned.place.change == GgufChange::kPlusOne ? value + 1 : value);
  }
  writer.write(planned.place.name, 0, std::as_bytes(std::span(there)));
}

void GgufConverter::write_weights(GgufWriter& writer, const PlannedTensor& planned) const {
  const std::int64_t cols = planned.shape.back(), rows = planned.shape[planned.shape.size() - 2];
  const std::vector<std::int64_t> order = order_of(planned, rows);
  const auto bytes =
      static_cast<std::uint64_t>(rows * cols / planned.type.elements() * planned.type.bytes());
  for (std::size_t e = 0; e < planned.place.modules.size(); ++e) {
    const QuantTensor weight = weight_of(planned.place.modules[e], planned.place.change);
    const bool keeps = planned.quantized && !planned.rounded && planned.type.block.has_value();
    const auto put = [&](std::uint64_t offset, std::span<const std::byte> part) {
      writer.write(planned.place.name, e * bytes + offset, part);
    };
    if (keeps) {
      put(0, rows_in_order(block_form_of(weight)->weight.planes[0], order).bytes());
    } else {
      write_rounded(planned, weight, e, order, put);
    }
  }
}

// One weight in the planned type, a few rows at a time.
template <class Put>
void GgufConverter::write_rounded(const PlannedTensor& planned, const QuantTensor& weight,
                                  std::size_t expert, const std::vector<std::int64_t>& order,
                                  const Put& put) const {
  const FormatPtr format = format_of(planned.type);
  Codec codec = options_.codec;
  if (options_.imatrix != nullptr) {
    codec.importance = options_.imatrix->importance(planned.place.name, weight.cols, expert);
  }
  const std::int64_t cols = weight.cols, at_a_time = std::max<std::int64_t>(kChunk / cols, 1);
  std::vector<float> values;
  std::uint64_t offset = 0;
  for (std::int64_t begin = 0; begin < weight.rows; begin += at_a_time) {
    const std::int64_t count = std::min(at_a_time, weight.rows - begin);
    values.resize(static_cast<std::size_t>(count * cols));
    codec.for_rows(count, cols, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        weight.format->decode(weight, order[static_cast<std::size_t>(begin + i)], 0, cols,
                              values.data() + i * cols, *codec.spans);
      }
    });
    const QuantTensor stored = format->encode(values.data(), count, cols, codec);
    put(offset, stored.planes[0].bytes());
    offset += stored.planes[0].byte_size();
  }
}

// What was written is read again and held against the source.
void GgufConverter::compare(const std::filesystem::path& path) {
  const auto written = open_checkpoint(path);
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    step("compare", i);
    compare_tensor(*written, tensors_[i]);
  }
}

// Empty when every value is the same.
std::string GgufConverter::changes(const Checkpoint& written, const PlannedTensor& planned,
                                   const std::string& module) const {
  if (planned.shape.size() > 1) {
    const QuantTensor there = written.linear(module), here = source_.linear(module);
    const bool turned =
        planned.place.change == GgufChange::kTransposed && planned.quantized && !planned.type.block;
    // E2M1 has one zero there.
    return difference(turned ? dense(transposed(there.planes[0])) : there, here, Zeros::kEqual);
  }
  const std::string name = module + (planned.place.bias ? ".bias" : ".weight");
  const Tensor there = to_float(written.tensor(name)), here = to_float(source_.tensor(name));
  // What a norm multiplies by is one more than what is stored.
  const float added = planned.place.change == GgufChange::kPlusOne ? 1 : 0;
  const bool same = std::equal(there.data<float>(), there.data<float>() + there.elements(),
                               here.data<float>(), here.data<float>() + here.elements(),
                               [&](float a, float b) { return a + added == b + added; });
  return same ? "" : "values differ";
}

void GgufConverter::compare_tensor(const Checkpoint& written, PlannedTensor& planned) {
  for (const std::string& module : planned.place.modules) {
    if (planned.rounded) {
      report_.requantized.push_back(module);
      continue;
    }
    const std::string found = changes(written, planned, module);
    if (found.empty()) continue;
    // A narrower type of floats may be asked for, of plain weights without more ado.
    const bool asked = is_wanted() && !planned.type.block;
    if (!options_.requantize && (planned.quantized || !asked)) {
      fail(asked ? ErrorKind::kUnsupported : ErrorKind::kInternal,
           "module '{}': {} in GGUF: {}; --requantize accepts that, and reports what it costs",
           module, planned.type.name(), found);
    }
    report_.requantized.push_back(module);
  }
}

}  // namespace

ConvertReport convert_to_gguf(const Checkpoint& source, const std::filesystem::path& destination,
                              const ConvertOptions& options, const ProgressSink& progress) {
  return GgufConverter(source, options, progress).run(destination);
}

}  // namespace nibble
