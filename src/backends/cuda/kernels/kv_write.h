// New keys and values into the cache, encoded as encode_kv_row (formats/kv_type.h) does, bit by
// bit; with rotary embedding (RopeArgs of ops/args.h) of queries and keys on the way if wanted.
#pragma once

#include "backends/cuda/kernels/attention_args.h"

namespace nibble::cuda {

// Rows q_begin + i of a sequence go to its tokens q_offset + i, i < q_rows. Pointers are device
// memory; k and v rows are float32, element (row t, head h, d) at k[t * row_stride + h *
// head_stride + d]. Rows of the cache need the alignment of their values (none for rows of codes).
struct KvWriteLaunch {
  const float* k = nullptr;
  const float* v = nullptr;
  std::int64_t k_row_stride = 0;
  std::int64_t v_row_stride = 0;
  std::int64_t k_head_stride = 0;
  std::int64_t v_head_stride = 0;
  std::int64_t rows = 0;  // of all sequences; rows that belong to none are left out
  int kv_heads = 0;
  int head_dim = 0;
  KvType kv_type = KvType::kBF16;
  const DeviceSequence* sequences = nullptr;
  int sequence_count = 0;
  bool dependent_launch = false;
};

// Rotation of the first rotary_dim elements of each head of queries and keys. Sine and cosine are
// float32's.
struct RopeLaunch {
  float* q = nullptr;  // rotated in place
  std::int64_t q_row_stride = 0;
  std::int64_t q_head_stride = 0;
  int heads = 0;
  int rotary_dim = 0;  // even, up to head_dim
  bool interleaved = false;
  const float* inv_freq = nullptr;          // [rotary_dim / 2]
  const std::int32_t* positions = nullptr;  // [rows]
  float scale = 1;
};

// Null when the kernels take the call, else why not.
const char* kv_write_unsupported(const KvWriteLaunch& args);

// Stores k and v.
cudaError_t kv_write(const KvWriteLaunch& args, cudaStream_t stream);

// Rotates q in place, stores the rotated k and v; the k that was given stays as it is.
cudaError_t rope_and_store(const KvWriteLaunch& args, const RopeLaunch& rope, cudaStream_t stream);

}  // namespace nibble::cuda
