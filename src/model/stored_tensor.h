// Checks of tensors of a checkpoint against what config.json says.
#pragma once

#include <string>

#include "base/error.h"
#include "tensor/tensor.h"

namespace nibble {

// kCorrupt, naming the tensor, unless the shapes agree.
inline void check_shape(const std::string& name, const Shape& stored, const Shape& expected) {
  if (stored == expected) return;
  fail(ErrorKind::kCorrupt, "tensor '{}': its shape is {}, but config.json asks for {}", name,
       to_string(stored), to_string(expected));
}

// As above, and kUnsupported unless its values are F16, BF16 or F32.
inline void check_floats(const std::string& name, const Tensor& stored, const Shape& expected) {
  check_shape(name, stored.shape(), expected);
  if (is_float_weight(stored.dtype())) return;
  fail(ErrorKind::kUnsupported, "tensor '{}': {} values", name, to_string(stored.dtype()));
}

}  // namespace nibble
