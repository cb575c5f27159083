#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <string_view>

namespace nibble {

#define NIBBLE_CHECKPOINT(symbol, name)              \
  bool probe_##symbol(const std::filesystem::path&); \
  std::unique_ptr<Checkpoint> open_##symbol(const std::filesystem::path&);
#include "checkpoint/registry.def"
#undef NIBBLE_CHECKPOINT

const std::vector<CheckpointConvention>& checkpoint_conventions() {
#define NIBBLE_CHECKPOINT(symbol, name) {name, probe_##symbol, open_##symbol},
  static const std::vector<CheckpointConvention> conventions = {
#include "checkpoint/registry.def"
  };
#undef NIBBLE_CHECKPOINT
  return conventions;
}

namespace {

// A file of a Hugging Face directory stands for all of it: its config, an index, or weights.
std::filesystem::path whole_model(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path)) return path;
  const std::filesystem::path directory = std::filesystem::absolute(path).parent_path();
  const std::string name = path.filename().string();
  const auto ends = [&](std::string_view suffix) { return name.ends_with(suffix); };
  const bool of_directory = name == "config.json" || ends(".safetensors") || ends(".index.json") ||
                            (name.starts_with("pytorch_model") && ends(".bin"));
  return of_directory && std::filesystem::exists(directory / "config.json") ? directory : path;
}

// What a file is that nibble does not read, by its name or its first bytes.
std::string_view what_it_is(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".safetensors")
    return "weights without the config.json that belongs beside them";
  if (extension == ".pt" || extension == ".pth" || extension == ".ckpt") {
    return "a PyTorch file by itself; put it beside its config.json as pytorch_model.bin";
  }
  if (extension == ".onnx" || extension == ".pb" || extension == ".h5" || extension == ".msgpack" ||
      extension == ".npz" || extension == ".engine") {
    return "a model of another framework; take its Hugging Face checkpoint";
  }
  return "no checkpoint that nibble knows; give a Hugging Face directory or a file of one, a "
         "GGUF file or a llama2.c .bin file";
}

}  // namespace

std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& given) {
  if (!std::filesystem::exists(given)) {
    fail(ErrorKind::kCorrupt, "{}: no such file or directory", given.string());
  }
  const std::filesystem::path path = whole_model(given);
  for (const CheckpointConvention& convention : checkpoint_conventions()) {
    if (convention.probe(path)) return convention.open(path);
  }
  fail(ErrorKind::kUnsupported, "{}: {}", path.string(), what_it_is(path));
}

}  // namespace nibble
