// Two linears and silu(first) * second in one launch.
#pragma once

#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cuda {

// The implementation of linear whose kernel does it.
inline constexpr const char* kPairImpl = "w4_small";

// Whether these are such a pair, of weights that the kernel takes together.
bool is_silu_pair(const LinearArgs& gate, const LinearArgs& up, const ActivationArgs& activation);
void run_silu_pair(const LinearArgs& gate, const LinearArgs& up, const ActivationArgs& activation,
                   ExecContext& context);

}  // namespace nibble::cuda
