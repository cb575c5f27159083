// Ops one after the other.
#pragma once

#include <span>
#include <variant>

#include "ops/args.h"

namespace nibble {

// Of a chain, in which each op reads what the one before it writes: a norm, attention or an
// activation, whose result is x of the linear calls behind it, or such calls (all of one x), whose
// results are x, and multiplier if there are two, of the activation behind them. Nothing else reads
// what lies between two ops of a chain, and what that holds afterwards is not defined.
using ChainLink =
    std::variant<NormArgs, AttentionArgs, ActivationArgs, std::span<const LinearArgs>>;

}  // namespace nibble
