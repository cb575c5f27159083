// A cache of any type as rows of bf16 for the prefill kernels, which read each key many times:
// [sequences, kv_heads, K and V, max_kv_rows, head_dim rounded up to 64, 128 or 256], zeros in the
// columns beyond head_dim, rows beyond a sequence's kv_rows untouched.
#pragma once

#include "backends/cuda/kernels/attention_args.h"

namespace nibble::cuda {

std::int64_t kv_unpack_columns(int head_dim);
std::size_t kv_unpack_bytes(const AttentionLaunch& args);

// Reads args.sequences and the caches they point at; writes args.workspace.
cudaError_t kv_unpack(const AttentionLaunch& args, cudaStream_t stream);

}  // namespace nibble::cuda
