// Two linears and silu(first) * second in one launch.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cuda {

// Whether these are such a pair, of weights that kernels take together.
bool is_silu_pair(const LinearArgs& gate, const LinearArgs& up, const ActivationArgs& activation);

using PairRun = void (*)(std::span<const LinearArgs> calls, ExecContext& context);
// How the implementation of that name runs pairs of so many rows; null when it does not.
PairRun silu_pair_of(std::string_view impl, std::int64_t rows);

void run_silu_pair(PairRun run, const LinearArgs& gate, const LinearArgs& up,
                   const ActivationArgs& activation, ExecContext& context);

}  // namespace nibble::cuda
