#include "checkpoint/container/tensor_files.h"

#include <set>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace nibble {
namespace {

// Shards stand beside their index: a name with any path in it could reach outside the model.
void check_shard_name(const std::string& name, const std::filesystem::path& index) {
  const bool plain = name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos &&
                     (name.ends_with(".safetensors") || name.ends_with(".bin")) &&
                     !name.starts_with('.');
  if (!plain) {
    fail(ErrorKind::kCorrupt, "{}: '{}' is no plain name of a .safetensors or .bin file",
         index.string(), name);
  }
}

}  // namespace

TensorFiles::TensorFiles(const std::filesystem::path& directory) : directory_(directory) {
  constexpr std::pair<const char*, const char*> kKinds[] = {{kSafetensorsFile, kSafetensorsIndex},
                                                            {kTorchFile, kTorchIndex}};
  for (const auto& [file, index] : kKinds) {
    if (std::filesystem::exists(directory / file)) {
      add(file);
    } else if (std::filesystem::exists(directory / index)) {
      open_index(index);
    }
    if (!files_.empty()) return;
  }
  fail(ErrorKind::kCorrupt, "{}: neither {} nor {} is there, nor an index of shards",
       directory.string(), kSafetensorsFile, kTorchFile);
}

void TensorFiles::open_index(const char* file_name) {
  const std::filesystem::path path = directory_ / file_name;
  const Json index = read_json_file(path.string());
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    fail(ErrorKind::kCorrupt, "{}: no object 'weight_map'", path.string());
  }
  std::set<std::string> shards;
  for (const auto& [name, shard] : index["weight_map"].items()) {
    if (!shard.is_string()) {
      fail(ErrorKind::kCorrupt, "{}: the shard of tensor '{}' is no file name", path.string(),
           name);
    }
    shards.insert(shard.get<std::string>());
  }
  for (const std::string& shard : shards) {
    check_shard_name(shard, path);
    if (!std::filesystem::exists(directory_ / shard)) {
      fail(ErrorKind::kCorrupt, "{}: shard {} is missing; download it again", path.string(), shard);
    }
    add(shard);
  }
  for (const auto& [name, shard] : index["weight_map"].items()) {
    const auto found = by_name_.find(name);
    if (found == by_name_.end() ||
        found->second->path().filename() != shard.get_ref<const std::string&>()) {
      fail(ErrorKind::kCorrupt, "{}: tensor '{}' is not in {}", path.string(), name,
           shard.get_ref<const std::string&>());
    }
  }
}

void TensorFiles::add(const std::string& file_name) {
  files_.push_back(open_tensor_file(directory_ / file_name));
  for (const std::string& name : files_.back()->names()) {
    const auto [other, inserted] = by_name_.emplace(name, files_.back().get());
    if (!inserted) {
      fail(ErrorKind::kCorrupt, "{}: tensor '{}' stands in {} and in {}", directory_.string(), name,
           other->second->path().filename().string(), file_name);
    }
  }
}

Tensor TensorFiles::tensor(const std::string& name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) {
    fail(ErrorKind::kCorrupt, "{}: no tensor '{}'", directory_.string(), name);
  }
  return found->second->tensor(name);
}

const Shape* TensorFiles::shape(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second->shape(name);
}

std::vector<std::string> TensorFiles::names() const {
  std::vector<std::string> names;
  names.reserve(by_name_.size());
  for (const auto& [name, file] : by_name_) names.push_back(name);
  return names;
}

}  // namespace nibble
