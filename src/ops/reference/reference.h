// The scalar implementation of each op: the definition, the oracle of the tests, and the last entry
// of every backend's list. Handles everything its Args can say.
#pragma once

#include "ops/args.h"
#include "ops/op.h"

namespace nibble::reference {

#define NIBBLE_OP(name, Args) void name(const Args& args, ExecContext& context);
#include "ops/ops.def"
#undef NIBBLE_OP

}  // namespace nibble::reference
