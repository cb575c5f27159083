// Attention in float32 for every head_dim, KvType and option, without rounding and without speed:
// what the fast kernels do not take, and what they can be held against on the device. Rows of the
// cache need the alignment of their values only (none for rows of codes).
#pragma once

#include "backends/cuda/kernels/attention_args.h"

namespace nibble::cuda {

// Null when the kernel takes the call, else why not.
const char* attention_exact_unsupported(const AttentionLaunch& args);

// Needs no workspace.
cudaError_t attention_exact(const AttentionLaunch& args, cudaStream_t stream);

}  // namespace nibble::cuda
