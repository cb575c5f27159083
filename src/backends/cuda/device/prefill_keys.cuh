// Where the prefill kernels find rows of bf16: in the cache, or unpacked in the workspace.
#pragma once

#include "backends/cuda/kernels/attention_args.h"

namespace nibble::cuda {

// Rows of one KV head, byte strides.
struct Bf16Rows {
  const std::uint8_t* k;
  const std::uint8_t* v;
  std::int64_t k_stride;
  std::int64_t v_stride;
  int columns;  // that exist; the rest of a tile's columns are zeros
};

// `columns`: of the unpacked rows (kernels/kv_unpack.h).
__device__ inline Bf16Rows find_rows(const AttentionLaunch& args, int index, int kv_head,
                                     int columns) {
  const DeviceSequence& sequence = args.sequences[index];
  if (reads_cache(args)) {
    return {static_cast<const std::uint8_t*>(sequence.k) + kv_head * sequence.k_head_stride,
            static_cast<const std::uint8_t*>(sequence.v) + kv_head * sequence.v_head_stride,
            sequence.k_row_stride, sequence.v_row_stride, args.head_dim};
  }
  const std::int64_t stride = 2 * columns;
  const std::int64_t plane =
      (static_cast<std::int64_t>(index) * args.kv_heads + kv_head) * 2 * args.max_kv_rows * stride;
  const auto* k = static_cast<const std::uint8_t*>(args.workspace) + plane;
  return {k, k + args.max_kv_rows * stride, stride, stride, columns};
}

}  // namespace nibble::cuda
