// The ordered implementation lists of the CPU backend: one function an op, "linear_impls()" and so
// on. The order is the order of preference; the reference is last.
#pragma once

#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cpu {

#define NIBBLE_OP(name, Args) ImplList<Args> name##_impls();
#include "ops/ops.def"
#undef NIBBLE_OP

// Whether a machine has what an implementation of this name needs ("avx2_blocked": avx2).
bool has_instructions(std::string_view impl_name, const DeviceCaps& caps);

}  // namespace nibble::cpu
