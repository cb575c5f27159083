// Checkpoints on disk: a container (bytes, bounds) under a convention (names, packing).
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/weight_source.h"

namespace nibble {

// An open checkpoint. Immutable, thread-safe; tensors are mapped, not read.
class Checkpoint : public WeightSource {
 public:
  // Registry name of the convention ("hf", "compressed-tensors", "gguf").
  virtual std::string convention() const = 0;
  virtual const std::filesystem::path& path() const = 0;
  // config.json, or what stands for it in this convention, with Hugging Face keys.
  virtual const Json& config() const = 0;
  // Files that travel unchanged into a converted copy (tokenizer, generation config, chat template,
  // licence), by name relative to path().
  virtual std::vector<std::string> companion_files() const = 0;
  // Files that such a checkpoint would have, made of what it holds itself: name to content
  // (tokenizer.json, tokenizer_config.json).
  virtual std::map<std::string, Json> documents() const { return {}; }
  // What the file asks for and nibble does otherwise, a sentence each; said when it is opened.
  virtual std::vector<std::string> notes() const { return {}; }
};

struct CheckpointConvention {
  const char* name;
  bool (*probe)(const std::filesystem::path& path);
  std::unique_ptr<Checkpoint> (*open)(const std::filesystem::path& path);
};

// In the order of registry.def, which is the order of probing.
const std::vector<CheckpointConvention>& checkpoint_conventions();

// Opens with the first convention whose probe accepts. kCorrupt when the path is missing or
// damaged, kUnsupported when no convention knows it.
std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& path);

}  // namespace nibble
