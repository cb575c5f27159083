#include "checkpoint/gguf_convert.h"

#include <algorithm>

#include "base/error.h"
#include "checkpoint/exact_form.h"
#include "checkpoint/gguf_keys.h"
#include "checkpoint/gguf_plan.h"
#include "checkpoint/gguf_vocabulary.h"
#include "checkpoint/imatrix.h"
#include "checkpoint/staged_file.h"
#include "formats/block_forms.h"
#include "formats/registry.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

// Elements that are rounded at a time.
constexpr std::int64_t kChunk = std::int64_t{1} << 22;

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
    plan_ = plan_gguf(source_, options_, keys_, report_, progress_);
    write(stage.path(), destination.stem().string());
    compare(stage.path());
    stage.commit();
    return std::move(report_);
  }

 private:
  GgufMetadata metadata(const std::string& name);
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
             static_cast<std::int64_t>(plan_.tensors.size()));
  }

  const Checkpoint& source_;
  const ConvertOptions& options_;
  const ProgressSink& progress_;
  ConvertReport report_;
  GgufKeys keys_;
  GgufPlan plan_;
};

GgufMetadata GgufConverter::metadata(const std::string& name) {
  GgufMetadata metadata = std::move(keys_.metadata);
  metadata.add("general.type", "model");
  metadata.add("general.name", name);
  metadata.add_u32("general.file_type", plan_.file_type);
  metadata.add_u32("general.quantization_version", 2);
  const auto embedding =
      std::ranges::find(plan_.tensors, "token_embd.weight",
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
  for (const PlannedTensor& t : plan_.tensors) plan.push_back({t.place.name, t.type, t.shape});
  for (const auto& [weight, scale] : plan_.scales) {
    plan.push_back({weight.substr(0, weight.rfind('.')) + ".scale", f32, {1}});
  }
  GgufWriter writer(path, metadata(name), std::move(plan));
  for (const GgufTable& table : keys_.tables) {
    writer.write(table.tensor, 0, std::as_bytes(std::span(table.values)));
  }
  for (const auto& [weight, scale] : plan_.scales) {
    writer.write(weight.substr(0, weight.rfind('.')) + ".scale", 0,
                 std::as_bytes(std::span(&scale, 1)));
  }
  for (std::size_t i = 0; i < plan_.tensors.size(); ++i) {
    step("write", i);
    plan_.tensors[i].shape.size() == 1 ? write_vectors(writer, plan_.tensors[i])
                                       : write_weights(writer, plan_.tensors[i]);
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
    const QuantTensor weight = gguf_weight(source_, planned.place.modules[e], planned.place.change);
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
  for (std::size_t i = 0; i < plan_.tensors.size(); ++i) {
    step("compare", i);
    compare_tensor(*written, plan_.tensors[i]);
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
    const bool asked = asks_for_types(options_) && !planned.type.block;
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
