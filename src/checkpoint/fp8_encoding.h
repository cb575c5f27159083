// Writing small floats for engines that take them without compressed-tensors.
#pragma once

#include "checkpoint/encoding.h"

namespace nibble {

const WeightEncoding& fp8_encoding();       // quant_method "fp8": DeepSeek's blocks, or the matrix
const WeightEncoding& modelopt_encoding();  // NVFP4

}  // namespace nibble
