// Queries, keys and values of multi-head latent attention (LatentSpec), for the rows of one piece.
#pragma once

#include <cstdint>

#include "model/layers/layer_context.h"

namespace nibble {

// The caller rotates what shared_keys() and the queries say between project() and expand().
class LatentProjection {
 public:
  LatentProjection(const LayerContext& context, std::int64_t rows);

  // q [rows, heads * head_dim] of x [rows, hidden], which `chain` makes; shows the narrow vectors
  // to the observer.
  void project(OpChain& chain, const float* x, float* q);
  // The rotated part of the keys, one for all heads.
  HeadView<float> shared_keys();
  // Keys and values [rows, heads * head_dim]; a head's values are followed by zeros.
  void expand(float* k, float* v);
  // The values of attended [rows, heads * head_dim] without what follows them: [rows, heads *
  // value_dim].
  void narrow(const float* attended, float* y);

 private:
  void copy(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t cols, float* y,
            std::int64_t y_stride);

  const LayerContext& context_;
  const AttentionSpec& spec_;
  const LatentSpec& latent_;
  std::int64_t rows_;
  Rows narrow_;  // [rows, kv_rank + rope_dim]
};

}  // namespace nibble
