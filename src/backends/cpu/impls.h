// The ordered implementation lists of the CPU backend: one function an op, "linear_impls()" and so
// on. The order is the order of preference; the reference is last.
#pragma once

#include "formats/span_kernels.h"
#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cpu {

#define NIBBLE_OP(name, Args) ImplList<Args> name##_impls();
#include "ops/ops.def"
#undef NIBBLE_OP

// Encoding and decoding with the best level of a machine.
const SpanKernels& spans_of(const DeviceCaps& caps);

}  // namespace nibble::cpu
