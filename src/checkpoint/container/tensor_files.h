// All tensors of a directory: one file, or shards under an index; safetensors, or else what
// torch.save wrote.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/container/tensor_file.h"

namespace nibble {

inline constexpr const char* kSafetensorsFile = "model.safetensors";
inline constexpr const char* kSafetensorsIndex = "model.safetensors.index.json";
inline constexpr const char* kTorchFile = "pytorch_model.bin";
inline constexpr const char* kTorchIndex = "pytorch_model.bin.index.json";

// Immutable and thread-safe. Opening reads headers only.
class TensorFiles {
 public:
  // kCorrupt when nothing of that kind is there, a shard is missing, a shard name leaves the
  // directory, a tensor is not in the shard that the index names, or stands in two.
  explicit TensorFiles(const std::filesystem::path& directory);

  bool has(const std::string& name) const { return by_name_.contains(name); }
  Tensor tensor(const std::string& name) const;       // kCorrupt when it is not there
  const Shape* shape(const std::string& name) const;  // null when it is not there
  std::vector<std::string> names() const;             // sorted

 private:
  void add(const std::string& file_name);
  void open_index(const char* file_name);

  std::filesystem::path directory_;
  std::vector<std::unique_ptr<const TensorFile>> files_;
  std::map<std::string, const TensorFile*> by_name_;
};

}  // namespace nibble
