#include "checkpoint/checkpoint.h"

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

std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) {
    fail(ErrorKind::kCorrupt, "{}: no such file or directory", path.string());
  }
  for (const CheckpointConvention& convention : checkpoint_conventions()) {
    if (convention.probe(path)) return convention.open(path);
  }
  fail(ErrorKind::kUnsupported,
       "{}: no checkpoint that nibble knows; give a Hugging Face directory or a llama2.c .bin file",
       path.string());
}

}  // namespace nibble
