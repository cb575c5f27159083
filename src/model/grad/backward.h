// Gradients of the ops that have some arithmetic of their own. Each adds the gradient of its
// inputs, given that of its output; matrices are [rows, cols] without gaps, float32. Results do not
// depend on the number of threads.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "ops/args.h"

namespace nibble {

// What a norm is, its pointers to x and y left open.
struct NormShape {
  NormKind kind = NormKind::kRms;
  std::int64_t rows = 0, cols = 0;
  const float* weight = nullptr;  // [cols] or null
  float weight_offset = 0;
  float eps = 0;
};
void norm_backward(const NormShape& norm, const float* x, const float* dy, float* dx,
                   ThreadPool& pool);

// Of y = f(x) * (multiplier + offset) as ActivationArgs has it, `count` values; multiplier and its
// gradient are null when there is none. Where x or the multiplier is held at its limit its gradient
// is 0.
struct ActivationShape {
  Activation kind = Activation::kIdentity;
  float limit = 0;
  float multiplier_offset = 0;
};
void activation_backward(const ActivationShape& activation, std::int64_t count, const float* x,
                         const float* multiplier, const float* dy, float* dx, float* dmultiplier);

// Of attention over whole sequences of `length` rows each, as AttentionArgs has it: q and out are
// [rows, heads * head_dim], k and v [rows, kv_heads * head_dim].
struct AttentionShape {
  std::int64_t rows = 0, length = 0;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  bool causal = true;
  std::int64_t window = 0;
  float scale = 1;
  float softcap = 0;
  std::span<const float> alibi_slopes;  // [heads] or empty
  std::span<const float> sinks;         // [heads] or empty
};
struct AttentionValues {
  const float *q, *k, *v, *dout;
};
struct AttentionGradients {
  float *q, *k, *v;
};
void attention_backward(const AttentionShape& shape, const AttentionValues& values,
                        const AttentionGradients& gradients, ThreadPool& pool);

// Of the weights of routed experts by the router's logits, the choice held fixed. `args` is the
// call; dweights is [rows, top_k], dlogits [rows, experts].
void route_backward(const MoeRouteArgs& args, const float* dweights, float* dlogits);

}  // namespace nibble
