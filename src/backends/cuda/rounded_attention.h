// Attention whose result only products of bf16 read.
#pragma once

#include <string_view>

#include "ops/args.h"
#include "ops/op.h"

namespace nibble::cuda {

// rounded_out: where the result goes instead of out, as bf16 [rows, heads * head_dim] without gaps;
// null for out.
using AttentionRun = void (*)(const AttentionArgs& args, void* rounded_out, ExecContext& context);
// How the implementation of that name does it; null when it does not.
AttentionRun rounded_attention_of(std::string_view impl);

}  // namespace nibble::cuda
