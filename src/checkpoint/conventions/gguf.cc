// GGUF files, presented as the Hugging Face checkpoints that they were made from. Tensors in blocks
// keep their format and are mapped; a module's rows are put into order where GGUF has another one.
#include "checkpoint/container/gguf.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf_arch.h"
#include "checkpoint/gguf_tokenizer.h"
#include "formats/block_forms.h"
#include "formats/registry.h"
#include "tensor/transpose.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// "name-00002-of-00005.gguf"
struct SplitName {
  std::string stem;
  int number = 0, count = 0;

  fs::path file(const fs::path& folder, int n) const {
    return folder / fmt::format("{}-{:05}-of-{:05}.gguf", stem, n, count);
  }
};

std::optional<SplitName> split_name(const fs::path& path) {
  const std::string name = path.filename().string();
  constexpr std::size_t kTail = sizeof("-00001-of-00002.gguf") - 1;
  if (name.size() <= kTail) return std::nullopt;
  const std::string tail = name.substr(name.size() - kTail);
  const auto digits = [&](std::size_t at) {
    const std::string text = tail.substr(at, 5);
    return std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; }) ? std::stoi(text)
                                                                                  : 0;
  };
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || tail.substr(15) != ".gguf") {
    return std::nullopt;
  }
  SplitName split{name.substr(0, name.size() - kTail), digits(1), digits(10)};
  if (split.number < 1 || split.number > split.count) return std::nullopt;
  return split;
}

// The file of a directory without config.json, or the first of its split; empty when there is none.
fs::path only_file(const fs::path& directory) {
  if (fs::exists(directory / "config.json")) return {};
  fs::path found;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (!entry.is_regular_file() || entry.path().extension() != ".gguf") continue;
    const auto split = split_name(entry.path());
    if (split && split->number > 1) continue;
    if (!found.empty()) {
      fail(ErrorKind::kUsage, "{}: several GGUF files; name one of them", directory.string());
    }
    found = entry.path();
  }
  return found;
}

// All files of a split, in order; the file itself when it is whole.
std::vector<std::shared_ptr<const GgufFile>> open_files(const fs::path& path) {
  std::vector<std::shared_ptr<const GgufFile>> files = {std::make_shared<GgufFile>(path)};
  const Json count = files[0]->header().metadata.value("split.count", Json(1));
  const auto split = split_name(path);
  if (!count.is_number_integer() || count == 1 || count == 0) return files;
  if (!split || count != split->count) {
    fail(ErrorKind::kCorrupt,
         "{}: one of {} files of a split, which must be named NAME-00001-of-{:05}.gguf and so on",
         path.string(), count.dump(), count.get<std::int64_t>() % 100000);
  }
  files.clear();
  for (int n = 1; n <= split->count; ++n) {
    const fs::path part = split->file(path.parent_path(), n);
    files.push_back(std::make_shared<GgufFile>(part));
    const Json& metadata = files.back()->header().metadata;
    if (metadata.value("split.no", Json()) != n - 1 ||
        metadata.value("split.count", Json()) != split->count) {
      fail(ErrorKind::kCorrupt, "{}: it says that it is part {} of {}, its name another one",
           part.string(), metadata.value("split.no", Json()).dump(),
           metadata.value("split.count", Json()).dump());
    }
  }
  return files;
}

// Where a tensor of ours lies.
struct Slot {
  const GgufFile* file = nullptr;
  const GgufTensor* tensor = nullptr;
  std::int64_t expert = -1;  // of a tensor of all experts
  GgufChange change = GgufChange::kNone;
};

std::string with(std::string pattern, const char* mark, std::string_view value) {
  const std::size_t at = pattern.find(mark);
  if (at != std::string::npos) pattern.replace(at, std::strlen(mark), value);
  return pattern;
}

// The digits behind "blk.", or nothing.
std::string_view layer_of(std::string_view name) {
  if (!name.starts_with("blk.")) return {};
  const std::size_t end = name.find('.', 4);
  return end == std::string_view::npos ? std::string_view() : name.substr(4, end - 4);
}

class GgufCheckpoint final : public Checkpoint {
 public:
  explicit GgufCheckpoint(const fs::path& path) : path_(path), files_(open_files(path)) {
    const Json& metadata = files_[0]->header().metadata;
    std::vector<GgufTensor> tensors;
    for (const auto& file : files_) {
      for (const GgufTensor& tensor : file->header().tensors) {
        tensors.push_back(tensor);
        add_factors(*file, tensor);
      }
    }
    config_ = config_from_gguf(metadata, tensors, short_factors_, path.string());
    settle_factors();
    arch_ = gguf_arch_named(metadata.at("general.architecture").get<std::string>());
    for (const auto& file : files_) {
      for (const GgufTensor& tensor : file->header().tensors) add(*file, tensor);
    }
    if (auto documents = tokenizer_from_gguf(metadata, path.string())) {
      documents_ = std::move(*documents);
    }
  }

  bool has(const std::string& name) const override { return find(name) != nullptr; }
  Tensor tensor(const std::string& name) const override;
  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, slot] : slots_) names.push_back(name);
    return names;
  }
  bool has_linear(const std::string& module) const override {
    return slots_.contains(module + ".weight") || slots_.contains(module + kBlocks);
  }
  QuantTensor linear(const std::string& module) const override;

  std::string convention() const override { return "gguf"; }
  const fs::path& path() const override { return path_; }
  const Json& config() const override { return config_; }
  std::vector<std::string> companion_files() const override { return {}; }
  std::map<std::string, Json> documents() const override { return documents_; }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  static constexpr const char* kBlocks = ".weight.blocks";

  const Slot* find(const std::string& name) const {
    const auto found = slots_.find(name);
    return found == slots_.end() ? nullptr : &found->second;
  }
  const Slot& require(const std::string& name) const {
    const Slot* slot = find(name);
    if (slot == nullptr) fail(ErrorKind::kCorrupt, "{}: no tensor '{}'", path_.string(), name);
    return *slot;
  }
  void add_factors(const GgufFile& file, const GgufTensor& tensor);
  void settle_factors();
  void add(const GgufFile& file, const GgufTensor& tensor);
  bool add_as(const GgufName& name, const GgufFile& file, const GgufTensor& tensor);
  void put(const std::string& module, const std::string& suffix, const Slot& slot);
  std::int64_t heads_of(const Slot& slot) const;
  Tensor rows_in_order(const Tensor& stored, const Slot& slot) const;
  QuantTensor scaled_nvfp4(const std::string& module, QuantTensor weight) const;

  fs::path path_;
  std::vector<std::shared_ptr<const GgufFile>> files_;
  Json config_;
  const GgufArch* arch_ = nullptr;
  std::map<std::string, Slot> slots_;
  std::map<std::string, float> scales_;  // of modules in NVFP4
  std::map<std::string, Json> documents_;
  std::vector<double> short_factors_, long_factors_;
  std::vector<std::string> notes_;
};

// rope_freqs.weight, or rope_factors_short.weight and rope_factors_long.weight: what the
// frequencies are divided by.
void GgufCheckpoint::add_factors(const GgufFile& file, const GgufTensor& tensor) {
  const bool is_long = tensor.name == "rope_factors_long.weight";
  if (!is_long && tensor.name != "rope_factors_short.weight" &&
      tensor.name != "rope_freqs.weight") {
    return;
  }
  const Tensor stored = file.read(tensor);
  if (stored.dtype() != DType::kF32) {
    fail(ErrorKind::kCorrupt, "tensor '{}': {} where F32 is needed", tensor.name,
         tensor.type.name());
  }
  std::vector<float> values(static_cast<std::size_t>(stored.elements()));
  to_float(stored, values.data());
  (is_long ? long_factors_ : short_factors_).assign(values.begin(), values.end());
}

void GgufCheckpoint::settle_factors() {
  if (!long_factors_.empty() && config_.contains("rope_scaling")) {
    config_["rope_scaling"]["long_factor"] = long_factors_;
  }
}

void GgufCheckpoint::put(const std::string& module, const std::string& suffix, const Slot& slot) {
  const bool blocks = slot.tensor->type.block.has_value();
  const std::string name = module + suffix + (blocks ? ".blocks" : "");
  if (blocks && suffix != ".weight") {
    fail(ErrorKind::kUnsupported, "tensor '{}': a bias of {}", slot.tensor->name,
         slot.tensor->type.name());
  }
  if (!slots_.emplace(name, slot).second) {
    fail(ErrorKind::kCorrupt, "{}: two tensors are '{}'", path_.string(), name);
  }
}

bool GgufCheckpoint::add_as(const GgufName& name, const GgufFile& file, const GgufTensor& tensor) {
  const std::string_view layer = layer_of(tensor.name);
  const std::string stem = with(name.gguf, "{}", layer);
  if (!tensor.name.starts_with(stem + ".")) return false;
  const std::string suffix = tensor.name.substr(stem.size());
  const std::string module = arch_->prefix + with(name.module, "{}", layer);
  if (suffix == ".scale" && tensor.type.dtype == DType::kF32 && element_count(tensor.shape) == 1) {
    to_float(file.read(tensor), 0, 1, &scales_[module]);
    return true;
  }
  if (suffix != ".weight" && suffix != ".bias") return false;
  Slot slot{&file, &tensor, -1, name.change};
  if (slot.change == GgufChange::kTransposed && (tensor.type.block || suffix == ".bias")) {
    slot.change = GgufChange::kNone;
  }
  if (module.find("{e}") == std::string::npos) {
    put(module, suffix, slot);
    return true;
  }
  if (tensor.shape.size() != 3 || tensor.shape[0] > 65536) {
    fail(ErrorKind::kCorrupt, "tensor '{}': {} is not [experts, rows, columns]", tensor.name,
         to_string(tensor.shape));
  }
  for (slot.expert = 0; slot.expert < tensor.shape[0]; ++slot.expert) {
    put(with(module, "{e}", std::to_string(slot.expert)), suffix, slot);
  }
  return true;
}

void GgufCheckpoint::add(const GgufFile& file, const GgufTensor& tensor) {
  if (tensor.name.starts_with("rope_f")) return;
  if (tensor.name == "output.weight" && arch_->head[0] != '\0') {
    return put(arch_->head, ".weight", {&file, &tensor});
  }
  for (const GgufName& name : arch_->names) {
    if (add_as(name, file, tensor)) return;
  }
  notes_.push_back(
      fmt::format("{}: tensor '{}' is not part of architecture '{}' as nibble has it; "
                  "it is left out",
                  path_.filename().string(), tensor.name.substr(0, 64), arch_->name));
}

std::int64_t GgufCheckpoint::heads_of(const Slot& slot) const {
  const char* key = slot.change == GgufChange::kKeyRows ? "num_key_value_heads"
                    : config_.contains("n_head")        ? "n_head"
                                                        : "num_attention_heads";
  const auto heads = config_.at(key).get<std::int64_t>();
  const std::int64_t rows = slot.tensor->shape.front();
  const std::int64_t parts = slot.change == GgufChange::kQkvRows ? 3 : 2;
  if (heads < 1 || rows % heads != 0 || rows / heads % parts != 0) {
    fail(ErrorKind::kCorrupt, "tensor '{}': {} rows for {} heads", slot.tensor->name, rows, heads);
  }
  return heads;
}

Tensor GgufCheckpoint::rows_in_order(const Tensor& stored, const Slot& slot) const {
  const std::int64_t heads = heads_of(slot), rows = stored.dim(0);
  Tensor ordered = Tensor::allocate(stored.dtype(), stored.shape());
  const std::size_t row_bytes = stored.byte_size() / static_cast<std::size_t>(rows);
  auto* to = static_cast<std::byte*>(ordered.address());
  for (std::int64_t row = 0; row < rows; ++row, to += row_bytes) {
    const auto from = static_cast<std::size_t>(gguf_row(slot.change, row, rows, heads));
    std::memcpy(to, stored.bytes().data() + from * row_bytes, row_bytes);
  }
  return ordered;
}

Tensor GgufCheckpoint::tensor(const std::string& name) const {
  const Slot& slot = require(name);
  Tensor stored = slot.file->read(*slot.tensor);
  if (slot.expert >= 0) {
    stored = stored.rows(slot.expert, slot.expert + 1).reshaped({stored.dim(1), stored.dim(2)});
  }
  switch (slot.change) {
    case GgufChange::kNone:
      return stored;
    case GgufChange::kTransposed:
      return stored.shape().size() == 2 ? transposed(stored) : stored;
    case GgufChange::kPlusOne: {
      Tensor less = to_float(stored);
      float* values = less.mutable_data<float>();
      for (std::int64_t i = 0; i < less.elements(); ++i) values[i] -= 1;
      return less;
    }
    default:
      return rows_in_order(stored, slot);
  }
}

// Codes and scales of the file under the scale of the whole matrix that stands beside it.
QuantTensor GgufCheckpoint::scaled_nvfp4(const std::string& module, QuantTensor weight) const {
  const auto scale = scales_.find(module);
  if (scale == scales_.end() || weight.format->descriptor().element.block != BlockType::kNvfp4) {
    return weight;
  }
  const auto form = plain_form_of_blocks(weight, scale->second);
  if (!form) {
    fail(ErrorKind::kUnsupported, "module '{}': NVFP4 with scales that are no numbers", module);
  }
  return *form;
}

QuantTensor GgufCheckpoint::linear(const std::string& module) const {
  const std::string name =
      find(module + kBlocks) != nullptr ? module + kBlocks : module + ".weight";
  Tensor stored = tensor(name);
  if (stored.shape().size() != 2) fail(ErrorKind::kCorrupt, "tensor '{}': no matrix", name);
  const GgufType& type = find(name)->tensor->type;
  if (!type.block) return dense(is_float_weight(stored.dtype()) ? stored : to_float(stored));
  const std::int64_t cols = stored.dim(1) / type.bytes() * type.elements();
  QuantTensor weight{block_format(*type.block), stored.dim(0), cols, {std::move(stored)}};
  return scaled_nvfp4(module, std::move(weight));
}

}  // namespace

bool probe_gguf(const fs::path& path) {
  if (fs::is_directory(path)) return !only_file(path).empty();
  return is_gguf(path);
}

std::unique_ptr<Checkpoint> open_gguf(const fs::path& path) {
  if (fs::is_directory(path)) return std::make_unique<GgufCheckpoint>(only_file(path));
  const auto split = split_name(path);
  if (split && split->number > 1 && fs::exists(split->file(path.parent_path(), 1))) {
    return std::make_unique<GgufCheckpoint>(split->file(path.parent_path(), 1));
  }
  return std::make_unique<GgufCheckpoint>(path);
}

}  // namespace nibble
