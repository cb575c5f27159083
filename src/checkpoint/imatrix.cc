#include "checkpoint/imatrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "base/mmap.h"
#include "checkpoint/container/gguf_writer.h"
#include "checkpoint/staged_file.h"

namespace nibble {
namespace {

constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";

std::vector<float> floats(std::span<const std::byte> bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

// The old form: numbers and texts one after the other, without a magic.
class OldForm {
 public:
  OldForm(std::span<const std::byte> file, std::string_view what) : left_(file), what_(what) {}

  Imatrix parse() {
    Imatrix imatrix;
    const std::int32_t count = number("a number of entries");
    if (count < 1) corrupt("a number of entries");
    for (std::int32_t i = 0; i < count; ++i) {
      const std::string name = text("a name");
      const std::int32_t calls = number("a number of calls"), size = number("a number of values");
      if (calls < 0 || size < 1) corrupt("an entry's size");
      const auto values = take(static_cast<std::uint64_t>(size) * sizeof(float), "values");
      imatrix.set(name, {floats(values), {static_cast<float>(calls)}});
    }
    if (left_.empty()) return imatrix;  // files from before there was more
    imatrix.source.chunks = static_cast<std::uint32_t>(std::max(number("a number of chunks"), 0));
    if (!left_.empty()) imatrix.source.datasets.push_back(text("the name of a text"));
    return imatrix;
  }

 private:
  [[noreturn]] void corrupt(const char* item) const {
    fail(ErrorKind::kCorrupt, "{}: no importance matrix: {} is damaged", what_, item);
  }
  std::span<const std::byte> take(std::uint64_t size, const char* item) {
    if (size > left_.size()) corrupt(item);
    const auto taken = left_.first(size);
    left_ = left_.subspan(size);
    return taken;
  }
  std::int32_t number(const char* item) {
    std::int32_t value = 0;
    std::memcpy(&value, take(sizeof value, item).data(), sizeof value);
    return value;
  }
  std::string text(const char* item) {
    const std::int32_t size = number(item);
    if (size < 0) corrupt(item);
    const auto bytes = take(static_cast<std::uint64_t>(size), item);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  std::span<const std::byte> left_;
  std::string_view what_;
};

void read_source(const Json& metadata, ImatrixSource& source) {
  const Json datasets = metadata.value("imatrix.datasets", Json::array());
  if (datasets.is_array()) {
    for (const Json& name : datasets) {
      if (name.is_string()) source.datasets.push_back(name.get<std::string>());
    }
  }
  const auto number = [&](const char* key) {
    const Json value = metadata.value(key, Json(0));
    return value.is_number_unsigned() ? static_cast<std::uint32_t>(value.get<std::uint64_t>()) : 0;
  };
  source.chunks = number("imatrix.chunk_count");
  source.chunk_size = number("imatrix.chunk_size");
}

Imatrix parse_gguf_form(std::span<const std::byte> file, std::string_view what) {
  const GgufHeader header = parse_gguf(file, what);
  if (header.swapped) {
    fail(ErrorKind::kUnsupported, "{}: an importance matrix in the other byte order", what);
  }
  std::map<std::string_view, const GgufTensor*> tensors;
  for (const GgufTensor& tensor : header.tensors) tensors[tensor.name] = &tensor;
  const auto values_of = [&](const GgufTensor& tensor) {
    if (tensor.type.block || tensor.type.dtype != DType::kF32) {
      fail(ErrorKind::kCorrupt, "{}: tensor '{}' of {} in an importance matrix", what, tensor.name,
           tensor.type.name());
    }
    return floats(file.subspan(header.data_offset + tensor.offset, tensor.bytes));
  };
  Imatrix imatrix;
  read_source(header.metadata, imatrix.source);
  for (const GgufTensor& tensor : header.tensors) {
    if (!tensor.name.ends_with(kSums)) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - kSums.size());
    const std::string count_name = name + std::string(kCounts);
    const auto counts = tensors.find(count_name);
    if (counts == tensors.end()) {
      fail(ErrorKind::kCorrupt, "{}: no '{}' beside '{}'", what, count_name, tensor.name);
    }
    imatrix.set(name, {values_of(tensor), values_of(*counts->second)});
  }
  if (imatrix.entries().empty()) {
    fail(ErrorKind::kCorrupt, "{}: no importance matrix: no tensor ends with {}", what, kSums);
  }
  return imatrix;
}

template <class T>
void put(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& to, const std::string& text) {
  put(to, static_cast<std::int32_t>(text.size()));
  to += text;
}

// One count for all experts there: the sums are scaled to that of the one that saw most.
std::string old_form(const Imatrix& imatrix) {
  std::string bytes;
  put(bytes, static_cast<std::int32_t>(imatrix.entries().size()));
  for (const auto& [name, entry] : imatrix.entries()) {
    put_text(bytes, name);
    const float most = std::ranges::max(entry.counts);
    put(bytes, static_cast<std::int32_t>(most));
    put(bytes, static_cast<std::int32_t>(entry.sums.size()));
    for (std::size_t i = 0; i < entry.sums.size(); ++i) {
      const float count = entry.counts[i / entry.cols()];
      put(bytes, count > 0 ? entry.sums[i] / count * std::trunc(most) : 0.0f);
    }
  }
  put(bytes, static_cast<std::int32_t>(imatrix.source.chunks));
  put_text(bytes, imatrix.source.datasets.empty() ? "" : imatrix.source.datasets.front());
  return bytes;
}

void write_gguf_form(const Imatrix& imatrix, const std::filesystem::path& path) {
  GgufMetadata metadata;
  metadata.add("general.type", "imatrix");
  metadata.add("imatrix.datasets", std::span<const std::string>(imatrix.source.datasets));
  metadata.add_u32("imatrix.chunk_count", imatrix.source.chunks);
  metadata.add_u32("imatrix.chunk_size", imatrix.source.chunk_size);
  std::vector<GgufTensor> plan;
  const GgufType f32 = gguf_type_of(DType::kF32).value();
  for (const auto& [name, entry] : imatrix.entries()) {
    const auto experts = static_cast<std::int64_t>(entry.counts.size());
    plan.push_back(
        {name + std::string(kSums), f32, {experts, static_cast<std::int64_t>(entry.cols())}});
    plan.push_back({name + std::string(kCounts), f32, {experts, 1}});
  }
  StagedFile stage(path);
  {
    GgufWriter writer(stage.path(), metadata, std::move(plan));
    for (const auto& [name, entry] : imatrix.entries()) {
      writer.write(name + std::string(kSums), 0, std::as_bytes(std::span(entry.sums)));
      writer.write(name + std::string(kCounts), 0, std::as_bytes(std::span(entry.counts)));
    }
  }
  stage.commit();
}

}  // namespace

void Imatrix::set(const std::string& tensor, ImatrixEntry entry) {
  const auto is_sum = [](float x) { return std::isfinite(x) && x >= 0; };
  const bool sound = !entry.counts.empty() && !entry.sums.empty() &&
                     entry.sums.size() % entry.counts.size() == 0 &&
                     std::ranges::all_of(entry.sums, is_sum) &&
                     std::ranges::all_of(entry.counts, is_sum);
  if (!sound) {
    fail(ErrorKind::kCorrupt, "importance matrix: '{}' holds {} sums and {} counts that are none",
         tensor.substr(0, 64), entry.sums.size(), entry.counts.size());
  }
  std::vector<float> means(entry.sums.size());
  for (std::size_t i = 0; i < means.size(); ++i) {
    const float count = entry.counts[i / entry.cols()];
    means[i] = count > 0 ? entry.sums[i] / count : 0;
  }
  means_[tensor] = std::move(means);
  entries_[tensor] = std::move(entry);
}

std::span<const float> Imatrix::importance(const std::string& tensor, std::int64_t cols,
                                           std::size_t expert) const {
  const auto found = entries_.find(tensor);
  if (found == entries_.end()) return {};
  const ImatrixEntry& entry = found->second;
  const auto wanted = static_cast<std::size_t>(cols);
  // The old form has one count for all experts.
  const std::size_t experts = entry.sums.size() / wanted;
  if (experts == 0 || entry.sums.size() % wanted != 0 || expert >= experts ||
      (entry.counts.size() != 1 && entry.counts.size() != experts)) {
    fail(ErrorKind::kCorrupt, "importance matrix: '{}' has {} values, the weight {} columns",
         tensor, entry.sums.size(), cols);
  }
  const auto means = std::span<const float>(means_.at(tensor)).subspan(expert * wanted, wanted);
  // Of experts that saw nothing, nothing is known.
  const bool known = std::ranges::any_of(means, [](float mean) { return mean > 0; });
  return known ? means : std::span<const float>();
}

Imatrix parse_imatrix(std::span<const std::byte> file, std::string_view what) {
  const bool gguf = file.size() >= 4 && std::memcmp(file.data(), "GGUF", 4) == 0;
  return gguf ? parse_gguf_form(file, what) : OldForm(file, what).parse();
}

Imatrix read_imatrix(const std::filesystem::path& path) {
  return parse_imatrix(MappedFile::open(path)->bytes(), path.string());
}

void write_imatrix(const Imatrix& imatrix, const std::filesystem::path& path) {
  if (path.extension() == ".dat") return write_file_atomic(path, old_form(imatrix));
  write_gguf_form(imatrix, path);
}

}  // namespace nibble
