#include "checkpoint/writer.h"

#include <algorithm>
#include <cstring>

#include "checkpoint/container/safetensors.h"
#include "checkpoint/container/tensor_files.h"

namespace nibble {
namespace {

constexpr std::uint64_t kPrefix = 8;
constexpr std::uint64_t kDataAlignment = 64;

// Tensors of each shard, by index into the plan, in the order of their data.
std::vector<std::vector<std::size_t>> split_into_shards(const std::vector<StoredTensor>& plan,
                                                        std::uint64_t max_shard_bytes) {
  std::vector<std::vector<std::size_t>> shards(1);
  std::uint64_t used = 0;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const std::uint64_t size = plan[i].byte_size();
    if (!shards.back().empty() && used + size > max_shard_bytes) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().push_back(i);
    used += size;
  }
  for (std::vector<std::size_t>& shard : shards) {
    std::ranges::stable_sort(shard, std::ranges::greater{},
                             [&](std::size_t i) { return dtype_size(plan[i].dtype); });
  }
  return shards;
}

std::string shard_name(std::size_t index, std::size_t count) {
  if (count == 1) return kSafetensorsFile;
  return fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

// Length, JSON and padding. `offsets` gets where each tensor begins in the file, in order.
std::string make_header(const std::vector<StoredTensor>& plan,
                        const std::vector<std::size_t>& shard,
                        std::vector<std::uint64_t>& offsets) {
  std::string json = R"({"__metadata__":{"format":"pt"})";
  std::uint64_t position = 0;
  for (const std::size_t i : shard) {
    const StoredTensor& tensor = plan[i];
    const std::uint64_t end = position + tensor.byte_size();
    json += fmt::format(R"(,{}:{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})",
                        Json(tensor.name).dump(), to_string(tensor.dtype),
                        Json(tensor.shape).dump(), position, end);
    offsets.push_back(position);
    position = end;
  }
  json += "}";
  const std::uint64_t padding =
      (kDataAlignment - (kPrefix + json.size()) % kDataAlignment) % kDataAlignment;
  json.append(padding, ' ');
  if (json.size() > kMaxSafetensorsHeader) {
    fail(ErrorKind::kUnsupported, "{} tensors in one shard; choose a smaller shard size",
         shard.size());
  }
  std::string header(kPrefix, '\0');
  const std::uint64_t length = json.size();
  std::memcpy(header.data(), &length, sizeof length);
  header += json;
  for (std::uint64_t& offset : offsets) offset += header.size();
  return header;
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

ShardedWriter::ShardedWriter(const std::filesystem::path& directory,
                             const std::vector<StoredTensor>& plan, std::uint64_t max_shard_bytes)
    : directory_(directory) {
  const auto shards = split_into_shards(plan, max_shard_bytes);
  for (std::size_t s = 0; s < shards.size(); ++s) {
    std::vector<std::uint64_t> offsets;
    const std::string header = make_header(plan, shards[s], offsets);
    std::uint64_t size = header.size();
    for (std::size_t i = 0; i < shards[s].size(); ++i) {
      const StoredTensor& tensor = plan[shards[s][i]];
      NIBBLE_CHECK(places_.emplace(tensor.name, Place{s, offsets[i], tensor}).second);
      size = offsets[i] + tensor.byte_size();
    }
    file_names_.push_back(shard_name(s, shards.size()));
    files_.push_back(std::make_unique<OutputFile>(directory / file_names_.back(), size));
    files_.back()->write_at(0, bytes_of(header));
  }
}

void ShardedWriter::write(const std::string& name, const Tensor& tensor) {
  const auto found = places_.find(name);
  NIBBLE_CHECK(found != places_.end());
  NIBBLE_CHECK(found->second.tensor.dtype == tensor.dtype());
  NIBBLE_CHECK(found->second.tensor.shape == tensor.shape());
  write(name, 0, tensor.bytes());
}

void ShardedWriter::write(const std::string& name, std::uint64_t offset,
                          std::span<const std::byte> bytes) {
  const auto found = places_.find(name);
  NIBBLE_CHECK(found != places_.end());
  const Place& place = found->second;
  const std::uint64_t size = place.tensor.byte_size();
  NIBBLE_CHECK(offset <= size && bytes.size() <= size - offset);
  files_[place.shard]->write_at(place.offset + offset, bytes);
}

void ShardedWriter::sync() {
  for (const auto& file : files_) file->sync();
}

void ShardedWriter::finish() {
  sync();
  if (files_.size() == 1) return;
  std::uint64_t total = 0;
  Json weight_map = Json::object();
  for (const auto& [name, place] : places_) {
    total += place.tensor.byte_size();
    weight_map[name] = file_names_[place.shard];
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
  write_file_atomic(directory_ / kSafetensorsIndex, index.dump(2) + "\n");
}

void write_config(const std::filesystem::path& directory, const Json& config,
                  const Json& quantization) {
  Json result = config;
  result.erase("quantization_config");
  if (!quantization.is_null()) result["quantization_config"] = quantization;
  write_file_atomic(directory / "config.json", result.dump(2) + "\n");
}

void copy_companions(const Checkpoint& source, const std::filesystem::path& directory) {
  const std::filesystem::path folder =
      std::filesystem::is_directory(source.path()) ? source.path() : source.path().parent_path();
  for (const std::string& name : source.companion_files()) {
    write_file_atomic(directory / name, read_text_file(folder / name));
  }
  for (const auto& [name, content] : source.documents()) {
    write_file_atomic(directory / name, content.dump(1) + "\n");
  }
}

}  // namespace nibble
