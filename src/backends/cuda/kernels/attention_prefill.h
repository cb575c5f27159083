// Attention of many query rows a sequence (Dao, "FlashAttention-2", arXiv:2307.08691): scores stay
// in registers, keys that no row of a tile sees are skipped. Queries, keys, values and the
// softmax's weights are rounded to bf16, sums are float32.
//   Keys of a tile that one query row sees and another does not must hold no NaN for the other to
// stay clear of it.
#pragma once

#include "backends/cuda/kernels/attention_args.h"

namespace nibble::cuda {

// Null when the kernel takes the call, else why not.
const char* attention_prefill_unsupported(const AttentionLaunch& args);

// Bytes of workspace: none for a cache that reads_cache(); else it is first unpacked there.
std::size_t attention_prefill_workspace(const AttentionLaunch& args);

cudaError_t attention_prefill(const AttentionLaunch& args, cudaStream_t stream);

}  // namespace nibble::cuda
