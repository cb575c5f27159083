// attention_prefill for Hopper: the same function on asynchronous products of warpgroups, with
// loads by warps of their own and products beside the softmax (Shah et al., "FlashAttention-3",
// arXiv:2407.08608).
#pragma once

#include "backends/cuda/kernels/attention_args.h"

namespace nibble::cuda {

// Null when the kernel takes the call, else why not. The device must be of compute capability 9.0.
const char* attention_prefill_sm90_unsupported(const AttentionLaunch& args);

// Bytes of workspace: none for a cache that reads_cache(); else it is first unpacked there.
std::size_t attention_prefill_sm90_workspace(const AttentionLaunch& args);

cudaError_t attention_prefill_sm90(const AttentionLaunch& args, cudaStream_t stream);

}  // namespace nibble::cuda
