// A plain Hugging Face directory: config.json and 16- or 32-bit safetensors.
#include "checkpoint/hf_directory.h"

namespace nibble {

bool probe_hf(const std::filesystem::path& path) { return std::filesystem::is_directory(path); }

std::unique_ptr<Checkpoint> open_hf(const std::filesystem::path& path) {
  const std::string method = quant_method_of(path);
  if (!method.empty()) {
    fail(ErrorKind::kUnsupported, "{}: quantization method '{}'", path.string(), method);
  }
  return make_hf_checkpoint("hf", open_hf_directory(path), nullptr);
}

}  // namespace nibble
