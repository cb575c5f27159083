// Where the result of a query row and head goes.
#pragma once

#include "backends/cuda/device/product_rows.cuh"
#include "backends/cuda/kernels/attention_args.h"

namespace nibble::cuda {

class ResultRow {
 public:
  __device__ __forceinline__ ResultRow(const AttentionLaunch& args, std::int64_t row,
                                       std::int64_t head)
      : plain_(args.out + row * args.out_stride + head * args.head_dim),
        rounded_(args.rounded_out == nullptr ? nullptr
                                             : static_cast<unsigned*>(args.rounded_out) +
                                                   (row * args.heads + head) * args.head_dim / 2) {}

  // Numbers d, which is even, and d + 1.
  __device__ __forceinline__ void store(int d, float first, float second) const {
    if (rounded_ != nullptr) {
      rounded_[d / 2] = rounded_pair<RowForm::kBf16>(first, second);
    } else {
      plain_[d] = first;
      plain_[d + 1] = second;
    }
  }

 private:
  float* plain_;
  unsigned* rounded_;
};

}  // namespace nibble::cuda
