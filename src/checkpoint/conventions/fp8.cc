// quant_method "fp8" (DeepSeek, transformers) and "fbgemm_fp8".
#include "checkpoint/hf_directory.h"
#include "checkpoint/scaled_float_modules.h"

namespace nibble {

bool probe_fp8(const std::filesystem::path& path) {
  const std::string method = quant_method_of(path);
  return method == "fp8" || method == "fbgemm_fp8";
}

std::unique_ptr<Checkpoint> open_fp8(const std::filesystem::path& path) {
  return open_scaled_floats("fp8", path);
}

}  // namespace nibble
