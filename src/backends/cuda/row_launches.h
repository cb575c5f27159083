// What kernels of rows are told of a call.
#pragma once

#include "backends/cuda/kernels/row_ops.h"
#include "ops/args.h"

namespace nibble::cuda {

NormRows rows_of(const NormArgs& args);
ActivateRows rows_of(const ActivationArgs& args);

}  // namespace nibble::cuda
