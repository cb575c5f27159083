// Writing a Hugging Face directory whose tensors are all known beforehand.
//
// Shards, headers and offsets follow from the plan alone, so tensors may be written in any order,
// by any thread, in several runs, and the bytes of the directory are always the same.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/encoding.h"

namespace nibble {

// What the reference writers use.
inline constexpr std::uint64_t kDefaultShardBytes = 5'000'000'000;

// Shards are filled in the order of the plan; a tensor is never split, so one that is larger than
// the limit has a shard to itself. One shard alone is model.safetensors, several are
// model-0000i-of-0000N.safetensors under an index. Within a shard wide types come first and the
// data begins at a multiple of 64 bytes, so every tensor is aligned to its element.
class ShardedWriter {
 public:
  // Creates the files, or opens those that a former run with the same plan left (what was written
  // stays), reserves their space and writes all headers. kDisk when that fails.
  ShardedWriter(const std::filesystem::path& directory, const std::vector<StoredTensor>& plan,
                std::uint64_t max_shard_bytes = kDefaultShardBytes);

  // The whole tensor. Thread-safe for different tensors. kInternal when the name is not planned or
  // dtype, shape or size differ from the plan; kDisk when writing fails.
  void write(const std::string& name, const Tensor& tensor);
  // Bytes [offset, offset + bytes.size()) of a tensor.
  void write(const std::string& name, std::uint64_t offset, std::span<const std::byte> bytes);
  // Everything written so far is on disk when this returns.
  void sync();
  // Writes the index (for several shards) and syncs. Call once, after the last tensor.
  void finish();

 private:
  struct Place {
    std::size_t shard = 0;
    std::uint64_t offset = 0;  // within the file
    StoredTensor tensor;
  };

  std::filesystem::path directory_;
  std::vector<std::string> file_names_;
  std::vector<std::unique_ptr<OutputFile>> files_;
  std::map<std::string, Place> places_;
};

// config.json of `config` with "quantization_config" set, or removed when `quantization` is null;
// everything else unchanged, keys sorted.
void write_config(const std::filesystem::path& directory, const Json& config,
                  const Json& quantization);

// Copies the companion files of a checkpoint, and writes its documents. kDisk when that fails.
void copy_companions(const Checkpoint& source, const std::filesystem::path& directory);

}  // namespace nibble
