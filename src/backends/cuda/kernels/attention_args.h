// What the attention kernels and the kernels that fill the cache are told. All that changes from
// step to step (lengths, positions, addresses) lies in device memory, so that a captured graph can
// be replayed with other contents; the host gives shapes and upper bounds.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "formats/kv_type.h"

namespace nibble::cuda {

// One sequence of an attention call (AttentionSequence of ops/args.h), in device memory. The row of
// token j of head h is at k + j * k_row_stride + h * k_head_stride (bytes); values likewise.
// Addresses and strides are multiples of 16 for kF32, kF16 and kBF16 and of 8 for kInt8, kInt4 and
// kFp8, unless a kernel says that it needs less; row strides are below 2^27, positions below 2^30.
struct DeviceSequence {
  std::int64_t q_begin;   // first row of the sequence in q and out
  std::int64_t q_rows;    // may be 0
  std::int64_t kv_rows;   // keys and values that exist, the rows of this call included
  std::int64_t q_offset;  // position of row q_begin among the keys
  void* k;
  std::int64_t k_row_stride;
  std::int64_t k_head_stride;
  void* v;
  std::int64_t v_row_stride;
  std::int64_t v_head_stride;
};

// Keys and values in blocks (AttentionSequence::blocks): row j of a sequence lies where row j %
// block_rows would lie if k and v began offsets[sequence * stride + j / block_rows] bytes later.
struct KvBlocks {
  const std::int64_t* offsets = nullptr;  // [sequences, stride], device memory
  std::int32_t stride = 0;
  std::int32_t block_rows = 0;  // 0: all rows lie one after the other
};

// An attention call with the semantics of AttentionArgs (ops/args.h). Pointers are device memory.
struct AttentionLaunch {
  const float* q = nullptr;  // row t, head h: q + t * q_row_stride + h * q_head_stride
  std::int64_t q_row_stride = 0;
  std::int64_t q_head_stride = 0;
  const DeviceSequence* sequences = nullptr;
  int sequence_count = 0;
  KvBlocks blocks;
  std::int64_t max_q_rows = 0;   // no sequence has more
  std::int64_t max_kv_rows = 0;  // likewise
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  KvType kv_type = KvType::kBF16;
  bool causal = true;
  std::int64_t window = 0;
  float scale = 1;
  float softcap = 0;
  const float* alibi_slopes = nullptr;  // [heads] or null
  const float* sinks = nullptr;         // [heads] or null; attention_exact alone heeds them
  float* out = nullptr;                 // [rows, heads * head_dim], rows out_stride apart
  std::int64_t out_stride = 0;
  // Where the result goes instead of out, rounded to bfloat16, [rows, heads * head_dim] without
  // gaps; or null. Not for attention_exact; head_dim is even.
  void* rounded_out = nullptr;
  int sm_count = 0;               // of the device that the stream belongs to
  bool dependent_launch = false;  // start before the previous kernel of the stream has ended
  void* workspace = nullptr;      // as many bytes as the kernel's size function says, 256-aligned
};

// Whether kernels for bf16 read the cache as it is; else it is unpacked for them first
// (kernels/kv_unpack.h).
__host__ __device__ constexpr bool reads_cache(const AttentionLaunch& args) {
  return args.kv_type == KvType::kBF16 && args.blocks.block_rows == 0;
}

}  // namespace nibble::cuda
