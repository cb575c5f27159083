#include "model/layers/latent.h"

namespace nibble {

LatentProjection::LatentProjection(const LayerContext& context, std::int64_t rows)
    : context_(context),
      spec_(context.spec.attention),
      latent_(*context.spec.attention.latent),
      rows_(rows),
      narrow_(context.backend, rows, latent_.kv_rank + latent_.rope_dim) {}

void LatentProjection::project(OpChain& chain, const float* x, float* q) {
  const LayerWeights& weights = context_.weights;
  if (latent_.q_rank == 0) {
    chain.add({{weights.q, {q}}, {weights.kv_a, {narrow_.data()}}}, x, rows_);
    return chain.run();
  }
  Rows queries(context_.backend, rows_, latent_.q_rank);
  chain.add({{weights.q_a, {queries.data()}}, {weights.kv_a, {narrow_.data()}}}, x, rows_);
  chain.run();
  Rows normed(context_.backend, rows_, latent_.q_rank);
  chain.add(norm_args(latent_.norm, weights.q_a_norm, queries.data(), rows_, latent_.q_rank,
                      normed.data()));
  context_.observe(chain, "query_latent", normed.data(), rows_, latent_.q_rank);
  chain.add({{weights.q, {q}}}, normed.data(), rows_);
  chain.run();
}

HeadView<float> LatentProjection::shared_keys() {
  return {narrow_.data() + latent_.kv_rank, latent_.kv_rank + latent_.rope_dim, 0};
}

void LatentProjection::expand(float* k, float* v) {
  const LayerWeights& weights = context_.weights;
  const std::int64_t heads = spec_.heads, dim = spec_.head_dim;
  const std::int64_t pair = latent_.nope_dim + latent_.value_dim;
  const std::int64_t narrow = latent_.kv_rank + latent_.rope_dim;
  Rows normed(context_.backend, rows_, latent_.kv_rank);
  NormArgs norm = norm_args(latent_.norm, weights.kv_a_norm, narrow_.data(), rows_, latent_.kv_rank,
                            normed.data());
  norm.x_stride = narrow;
  OpChain chain(context_.backend);
  chain.add(norm);
  context_.observe(chain, "key_latent", normed.data(), rows_, latent_.kv_rank);
  Rows wide(context_.backend, rows_, heads * pair);
  chain.add({{weights.kv_b, {wide.data()}}}, normed.data(), rows_);
  chain.run();

  copy(wide.data(), pair, rows_ * heads, latent_.nope_dim, k, dim);
  const HeadView<float> shared = shared_keys();
  for (std::int64_t h = 0; h < heads; ++h) {
    copy(shared.data, shared.row_stride, rows_, latent_.rope_dim, k + h * dim + latent_.nope_dim,
         heads * dim);
  }
  if (latent_.value_dim < dim) {
    context_.backend.memory().zero(v,
                                   static_cast<std::size_t>(rows_ * heads * dim) * sizeof(float));
  }
  copy(wide.data() + latent_.nope_dim, pair, rows_ * heads, latent_.value_dim, v, dim);
}

void LatentProjection::narrow(const float* attended, float* y) {
  copy(attended, spec_.head_dim, rows_ * spec_.heads, latent_.value_dim, y, latent_.value_dim);
}

void LatentProjection::copy(const float* x, std::int64_t x_stride, std::int64_t rows,
                            std::int64_t cols, float* y, std::int64_t y_stride) {
  ActivationArgs args;
  args.kind = Activation::kIdentity;
  args.x = x;
  args.x_stride = x_stride;
  args.rows = rows;
  args.cols = cols;
  args.y = y;
  args.y_stride = y_stride;
  context_.backend.run(args);
}

}  // namespace nibble
