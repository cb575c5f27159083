// Writing small floats for engines that take them without compressed-tensors.
#pragma once

#include "checkpoint/encoding.h"

namespace nibble {

// What FP8 of Model Optimizer rounds inputs to: under weights with one scale, and with one for each
// row, which is the "quant_algo" kModelOptRows.
inline constexpr const char* kModelOptStaticInputs = "fp8_e4m3_tensor_static";
inline constexpr const char* kModelOptTokenInputs = "fp8_e4m3_token";
inline constexpr const char* kModelOptRows = "FP8_PER_CHANNEL_PER_TOKEN";

const WeightEncoding& fp8_encoding();       // quant_method "fp8": DeepSeek's blocks, or the matrix
const WeightEncoding& modelopt_encoding();  // FP8 with its inputs, NVFP4

}  // namespace nibble
