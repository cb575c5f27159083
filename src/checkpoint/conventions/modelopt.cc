// quant_method "modelopt" (TensorRT Model Optimizer): FP8 and NVFP4.
#include "checkpoint/hf_directory.h"
#include "checkpoint/scaled_float_modules.h"

namespace nibble {

bool probe_modelopt(const std::filesystem::path& path) {
  const std::string method = quant_method_of(path);
  return method == "modelopt" || method == "modelopt_fp4";
}

std::unique_ptr<Checkpoint> open_modelopt(const std::filesystem::path& path) {
  return open_scaled_floats("modelopt", path);
}

}  // namespace nibble
