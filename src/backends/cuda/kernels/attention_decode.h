// Attention of few query rows a sequence: a step of decoding, a batch of them, or rows that check a
// guess. Keys and values are read once for all query heads of their group, in their stored form;
// long sequences are split over blocks (Dao et al., "Flash-Decoding for long-context inference",
// 2023), the last of which to arrive adds the parts up, in a fixed order.
//
// Products are of 16-bit numbers summed in float32. With kBF16 and kF32 all is rounded to bf16:
// keys and values of kF32, queries, and the weights of the softmax. With the other types to f16,
// queries after division by a power of two, so that they cannot overflow; codes enter exactly.
// Rows of codes that lie one after the other, a head_dim of 64, 128 or 256 long, the
// first on 16 bytes, are read fastest.
//   Rows of the cache that one query row of a block of 8 or 16 sees and another does not must hold
// no NaN for the other to stay clear of it.
#pragma once

#include "backends/cuda/kernels/attention_args.h"

namespace nibble::cuda {

// Null when the kernel takes the call, else why not. Many query rows work too, but the keys are
// read again for every 16 (query row, head of the group) pairs.
const char* attention_decode_unsupported(const AttentionLaunch& args);

// Bytes of workspace for a call of these shapes. The first kAttentionCounterBytes of it must be
// zero before the first call; every call leaves them zero.
inline constexpr std::size_t kAttentionCounterBytes = std::size_t{1} << 18;
std::size_t attention_decode_workspace(const AttentionLaunch& args);

cudaError_t attention_decode(const AttentionLaunch& args, cudaStream_t stream);

}  // namespace nibble::cuda
