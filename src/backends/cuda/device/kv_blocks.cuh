// Where rows of keys and values lie.
#pragma once

#include "backends/cuda/kernels/attention_args.h"

namespace nibble::cuda {

// Of one sequence.
class KvPlaces {
 public:
  __device__ KvPlaces(const KvBlocks& blocks, int sequence)
      : offsets_(blocks.offsets + sequence * std::int64_t{blocks.stride}),
        block_rows_(static_cast<unsigned>(blocks.block_rows)) {}

  // Bytes from row 0, if that began where k or v points, to row `row`.
  __device__ __forceinline__ std::int64_t offset(int row, std::int64_t row_stride) const {
    if (block_rows_ == 0) return row * row_stride;
    const unsigned block = static_cast<unsigned>(row) / block_rows_;
    return offsets_[block] + (static_cast<unsigned>(row) - block * block_rows_) * row_stride;
  }

  __device__ bool in_blocks() const { return block_rows_ != 0; }

 private:
  const std::int64_t* offsets_;
  unsigned block_rows_;
};

}  // namespace nibble::cuda
