// The CUDA implementations of each op, in order of preference.
#pragma once

#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cuda {

#define NIBBLE_OP(name, Args) ImplList<Args> name##_impls();
#include "ops/ops.def"
#undef NIBBLE_OP

// Whether implementations that round activations may run.
inline bool rounds(const DeviceCaps& caps) { return !caps.exact_activations; }

}  // namespace nibble::cuda
