#include "formats/ggml_input.h"

#include "base/error.h"

namespace nibble {

ActivationFormatPtr ggml_input(const Format& weight) {
  if (weight.is_float()) return nullptr;
  if (!weight.is_block()) {
    fail(ErrorKind::kUnsupported,
         "activations ggml: what its kernels round follows from the type of a GGUF file's blocks; "
         "weights are {} here",
         weight.name());
  }
  ActivationDescriptor input;
  input.scope = ActivationScope::kGroup;
  const bool super_block = layout_of(weight.descriptor().element.block).elements == 256;
  input.group = super_block ? 256 : 32;
  input.half_scales = !super_block;
  return std::make_shared<ActivationFormat>(input);
}

}  // namespace nibble
