// A file of repacked weights, so that the next start maps them instead of making them again.
//
// The container is safetensors: one U8 tensor a blob, padded to a multiple of 64 bytes, and one
// named "identity" that says of which checkpoint they were made. Blobs are not checksummed (reading
// all of them would cost what the cache saves): whoever may write the file may change the model's
// answers, as with the checkpoint itself, but no content of the file makes the program misbehave.
//
// The price: mapped pages are small ones and lie where the page cache has them, while freshly
// repacked weights get huge pages near the thread that reads them. Decoding is some 4 % slower.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "backends/packed_store.h"
#include "base/log.h"
#include "checkpoint/container/safetensors.h"

namespace nibble {

// Name, size and time of change of the files that a checkpoint's weights depend on: *.safetensors,
// *.bin, *.gguf and config.json of a directory, or the one file. A file that is replaced by another
// of the same size and time is not noticed. kDisk when it cannot be read.
std::string checkpoint_identity(const std::filesystem::path& checkpoint);

// The file for a checkpoint: inside its directory (next to a single file) when `directory` is
// empty, or in `directory` under a name that no other checkpoint's has.
std::filesystem::path packed_cache_path(const std::filesystem::path& checkpoint,
                                        const std::filesystem::path& directory = {});

// Not thread-safe. Tensors that find() returned outlive it.
class PackedCache final : public PackedStore {
 public:
  // A file that is missing, damaged or made of another checkpoint counts as empty; the latter two
  // are logged. Throws nothing for what a file holds.
  PackedCache(std::filesystem::path file, std::string identity, LogSink log);

  Tensor find(const std::string& name, std::size_t bytes) override;
  void put(const std::string& name, const Tensor& tensor) override;

  // When something was put: writes a file of all that was found or put, beside, and renames it into
  // place. A full or read-only disk is a warning; the old file then stays. Forgets what was put.
  void save();

 private:
  void open();
  void write() const;

  std::filesystem::path file_;
  std::string identity_;  // padded
  LogSink log_;
  std::unique_ptr<const SafetensorsFile> stored_;
  std::map<std::string, Tensor> used_;
  bool changed_ = false;
};

}  // namespace nibble
