// Static scales of a linear layer's input as tensors beside its weight, as compressed-tensors
// names them:
//
//   <module>.input_scale        F32 [1], or [cols] by channel
//   <module>.input_zero_point   I8 of the same shape, the zero point less 2^(bits - 1);
//                               asymmetric integers only
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "checkpoint/container/tensor_files.h"
#include "checkpoint/encoding.h"

namespace nibble {

// Adds their places, if a module has any.
void plan_input_scales(const QuantizedModule& module, std::vector<StoredTensor>& tensors);

// The tensors of a static format whose scales are given.
std::vector<std::pair<std::string, Tensor>> input_scales(const std::string& module,
                                                         const ActivationFormat& format);

// A static format with the scales of a module of `cols` columns. kCorrupt when a tensor has another
// type or size, a scale is not positive or a zero point is no code.
ActivationFormatPtr read_input_scales(const TensorFiles& files, const std::string& module,
                                      std::int64_t cols, const ActivationFormat& format);

}  // namespace nibble
