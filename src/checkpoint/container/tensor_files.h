// All tensors of a directory: one model.safetensors, or shards under model.safetensors.index.json.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/container/safetensors.h"
#include "tensor/tensor.h"

namespace nibble {

inline constexpr const char* kSafetensorsFile = "model.safetensors";
inline constexpr const char* kSafetensorsIndex = "model.safetensors.index.json";

// Immutable and thread-safe. Opening reads headers only.
class TensorFiles {
 public:
  // kCorrupt when a shard is missing, a shard name leaves the directory, a tensor is not in the
  // shard that the index names, or stands in two; kUnsupported when the directory holds weights of
  // another kind only (pytorch_model.bin).
  explicit TensorFiles(const std::filesystem::path& directory);

  bool has(const std::string& name) const { return by_name_.contains(name); }
  Tensor tensor(const std::string& name) const;       // kCorrupt when it is not there
  const Shape* shape(const std::string& name) const;  // null when it is not there
  std::vector<std::string> names() const;             // sorted

 private:
  void add(const std::string& file_name);
  void open_index();

  std::filesystem::path directory_;
  std::vector<std::unique_ptr<const SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*> by_name_;
};

}  // namespace nibble
