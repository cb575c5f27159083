// A cache of any type, in blocks or not, as rows of bf16 for the prefill kernels, which read each
// key many times: [sequences, kv_heads, K and V, max_kv_rows, head_dim rounded up to 64, 128 or
// 256], zeros in the columns beyond head_dim, rows beyond a sequence's kv_rows untouched.
#pragma once

#include "backends/cuda/kernels/attention_args.h"

namespace nibble::cuda {

std::int64_t kv_unpack_columns(int head_dim);
// None for a cache that is read as it is.
std::size_t kv_unpack_bytes(const AttentionLaunch& args);

// Null when the sizes suit a prefill kernel whose blocks have so many query rows and which takes
// heads of up to `most_dim` (a multiple of 8), else why not.
const char* prefill_sizes_unsupported(const AttentionLaunch& args, int most_dim, int block_rows);

// Reads args.sequences and the caches they point at; writes args.workspace. Nothing for a cache
// that is read as it is.
cudaError_t kv_unpack(const AttentionLaunch& args, cudaStream_t stream);

}  // namespace nibble::cuda
