// Chains of ops on the card: what only products read is written in the form that they read.
#pragma once

#include <span>

#include "backends/dispatch.h"
#include "ops/chain.h"

namespace nibble::cuda {

void run_chain(std::span<const ChainLink> links, OpTable& ops, ExecContext& context,
               const LogSink& verbose);

}  // namespace nibble::cuda
